# Databricks notebook source
# MAGIC %md
# MAGIC # 5. Score: the champion classifies new photographs
# MAGIC A stream reads new rows of `images` and appends to `predictions`, each with the version that made it.
# MAGIC Photographs that have been scored before are left out, and a killed run is continued by the next. If no version
# MAGIC serves, nothing is scored, and the output names the reason.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads `images` and the champion; writes
# MAGIC `predictions`.

# COMMAND ----------

from lakevision.platform import workspace

workspace.check_versions()

# COMMAND ----------

from lakevision.ingest import tables
from lakevision.notebook import samples
from lakevision.registry import model_registry, tracking
from lakevision.release import plots as release_plots, promotions
from lakevision.serving.spark import score

cfg = workspace.configuration()
places = workspace.places(cfg)
spark = workspace.spark(cfg)
tracking.start(cfg, places)
tables.create(spark, places)
champion = model_registry.version_of(cfg, "champion")
print(promotions.why(spark, cfg, places))

# COMMAND ----------

# MAGIC %md
# MAGIC ## New photographs, as a stream
# MAGIC With `score.rescore`, older photographs follow as a batch. To score others by hand:
# MAGIC `score.batch(spark, cfg, places, champion, "device = 'porch-3'")`.

# COMMAND ----------

scored = score.all_new(spark, cfg, places, champion)
workspace.report(places, "score", scored.figures())
print(scored.in_words())

# COMMAND ----------

# MAGIC %md
# MAGIC ## Predictions beside labels
# MAGIC The newest prediction of each photograph, and its label if it has one. The share that agrees is not an accuracy,
# MAGIC because the model was trained on most of these photographs.

# COMMAND ----------

workspace.display(score.by_label(spark, places))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Predictions by hour, and the least certain ones
# MAGIC The least certain photographs are worth a label.

# COMMAND ----------

predictions = (
    score.latest(spark, places)
    .select("captured_at", "device", "label", "probability", "error")
    .limit(20_000)
    .toPandas()
)
workspace.display(release_plots.predictions(predictions, samples.least_sure(spark, places, 6), scored.in_words()))
