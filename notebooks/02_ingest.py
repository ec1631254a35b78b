# Databricks notebook source
# MAGIC %md
# MAGIC # 2. Ingest: each file becomes one row
# MAGIC A stream finds what has landed since the last run and stops. A photograph becomes a row of `images`, with its bytes, its EXIF, statistics of its
# MAGIC pixels and what may be wrong with it; a file that is no usable image becomes a row of `rejected_images`, with the reason. Nothing is lost, and
# MAGIC nothing comes in twice, also when a run is killed. What a photograph shows goes to `labels`: from its folder or name, and from a CSV or a table
# MAGIC (`ingest.label_source`), which outranks them; a correction is a new row there.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads the landing zone; writes `images`, `rejected_images`,
# MAGIC `labels`.

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

done = stream.ingest(spark, cfg, places)
workspace.report(places, "ingest", done.figures())
print(done.in_words())

# COMMAND ----------

# MAGIC %md
# MAGIC ## The photographs
# MAGIC Every column carries a comment: `DESCRIBE TABLE` shows them. A second copy of the same bytes names the first (`duplicate_of`), and training leaves it out.

# COMMAND ----------

workspace.display(samples.by_camera(spark, places))
workspace.display(plots.contact_sheet(samples.spread(spark, places, 12), f"12 of {done.images} photographs"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## What was rejected, and why
# MAGIC The bytes are kept. A file that is replaced in the landing zone is looked at again in the next run.

# COMMAND ----------

workspace.display(
    spark.table(places.table("rejected_images")).groupBy("reason").count().orderBy("count", ascending=False).limit(20)
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What may be wrong with them
# MAGIC Scores run from 0 to 1, lower is worse. A camera that has a history (50 frames) is judged by it: the night of a camera that sees nights is no fault. Frames
# MAGIC of one fixed camera are near copies of each other by nature; 03_train keeps such copies on one side of the split.

# COMMAND ----------

workspace.display(samples.issues(spark, places))
workspace.display(
    plots.contact_sheet(
        samples.worst(spark, places, 12), "The lowest scores of each issue; 'flagged' is below the camera's cut-off"
    )
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Ask the table
# MAGIC The dark frames of one camera on its latest night, say:

# COMMAND ----------

workspace.display(
    spark.sql(f"""
    SELECT captured_at, round(quality.dark_score, 3) AS dark_score, quality.is_dark_issue, round(statistics.brightness, 3) AS brightness, path
    FROM {places.table("images")}
    WHERE device = (SELECT min(device) FROM {places.table("images")}) AND (hour(captured_at) >= 20 OR hour(captured_at) < 6)
      AND captured_at > (SELECT max(captured_at) - INTERVAL 1 DAY FROM {places.table("images")} WHERE device = (SELECT min(device) FROM {places.table("images")}))
    ORDER BY dark_score LIMIT 10""")
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Maintenance
# MAGIC Many small writes become few large files, and files that no version within the retention needs are removed; only where that is due (`ingest.maintenance_days`).

# COMMAND ----------

workspace.display(tables.maintain(spark, places, cfg.ingest.maintenance_days, cfg.ingest.retention_days))

# COMMAND ----------

# MAGIC %md
# MAGIC ## When the cameras looked, and into what light
# MAGIC Labels that follow the hour, the day or the light are a trap: a model then learns the clock. 03_train asks for it.

# COMMAND ----------

workspace.display(plots.by_hour(samples.light(spark, places), f"{done.images} photographs"))
