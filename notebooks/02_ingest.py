# Databricks notebook source
# MAGIC %md
# MAGIC # 2. Ingest: each file becomes one row
# MAGIC A stream reads the files that have landed since the last run, and stops. Each photograph becomes a row of
# MAGIC `images`: its bytes, EXIF, pixel statistics and quality issues. A file that is not a usable image becomes a row
# MAGIC of `rejected_images`, with the reason. No file is lost or ingested twice, even if a run is killed.
# MAGIC
# MAGIC The label of each photograph goes to `labels`. It comes from the file's folder or name, or from a CSV file or a
# MAGIC table (`ingest.label_source`), which takes precedence. A correction is a new row there.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads the landing zone; writes `images`,
# MAGIC `rejected_images`, `labels`.

# COMMAND ----------

from lakevision.platform import workspace

workspace.check_versions()

# COMMAND ----------

from lakevision.ingest import stream, tables
from lakevision.notebook import plots, samples

cfg = workspace.configuration()
places = workspace.places(cfg)
spark = workspace.spark(cfg)

# COMMAND ----------

ingested = stream.ingest(spark, cfg, places)
workspace.report(places, "ingest", ingested.figures())
print(ingested.in_words())

# COMMAND ----------

# MAGIC %md
# MAGIC ## The photographs
# MAGIC Each column has a comment: `DESCRIBE TABLE` shows them. A second copy of the same bytes names the first copy
# MAGIC (`duplicate_of`), and training leaves it out.

# COMMAND ----------

workspace.display(samples.by_camera(spark, places))
workspace.display(plots.contact_sheet(samples.spread(spark, places, 12), f"12 of {ingested.images} photographs"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Rejected files
# MAGIC The table keeps their bytes. If a file is replaced in the landing zone, the next run checks it again.

# COMMAND ----------

workspace.display(
    spark.table(places.table("rejected_images")).groupBy("reason").count().orderBy("count", ascending=False).limit(20)
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Quality issues
# MAGIC Scores run from 0 to 1; lower is worse. A camera with a history of 50 frames is judged by its own history: a
# MAGIC dark frame is no fault if the camera takes photographs at night. Frames of a fixed camera are near copies of
# MAGIC each other; 03_train keeps such copies in one split.

# COMMAND ----------

workspace.display(samples.issues(spark, places))
workspace.display(
    plots.contact_sheet(
        samples.worst(spark, places, 12), "The lowest scores of each issue; 'flagged': below the camera's cut-off"
    )
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Query the table
# MAGIC For example, the darkest photographs of each camera:

# COMMAND ----------

workspace.display(
    spark.sql(f"""
    WITH ranked AS (
      SELECT *, row_number() OVER (PARTITION BY device ORDER BY quality.dark_score, path) AS place
      FROM {places.table("images")}
    )
    SELECT device, captured_at, round(statistics.brightness, 3) AS brightness,
           round(quality.dark_score, 3) AS dark_score, quality.is_dark_issue, path
    FROM ranked WHERE place <= 3 ORDER BY device, place LIMIT 30""")
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Maintenance
# MAGIC Small files are merged into large ones, and files that no version within the retention needs are removed. This
# MAGIC happens at most every `ingest.maintenance_days` days.

# COMMAND ----------

workspace.display(tables.maintain(spark, places, cfg.ingest.maintenance_days, cfg.ingest.retention_days))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Hour and light of the photographs
# MAGIC If the labels follow the hour, the day or the light, a model may learn the clock instead of the object. 03_train
# MAGIC tests for this.

# COMMAND ----------

workspace.display(plots.by_hour(samples.light(spark, places), f"{ingested.images} photographs"))
