# Databricks notebook source
# MAGIC %md
# MAGIC # 5. Score: the champion says what is on new photographs
# MAGIC A stream follows `images` and appends to `predictions`, each with the version that made it: what an earlier run has scored is left alone, and a
# MAGIC run that was killed goes on. Where no version serves, nothing is scored, and that is said.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads `images` and the champion; writes `predictions`.

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
# MAGIC With `score.rescore` the older ones, too, as a batch. Others by hand: `score.batch(spark, cfg, where, champion, "device = 'porch-3'")`.

# COMMAND ----------

scored = score.all_new(spark, cfg, places, champion)
workspace.report(places, "score", scored.figures())
print(scored.in_words())

# COMMAND ----------

# MAGIC %md
# MAGIC ## What came out
# MAGIC The newest prediction of each photograph, beside its label where it has one. The share that agrees is no accuracy: most were trained on.

# COMMAND ----------

workspace.display(score.by_label(spark, places))

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it said through the day, and where it was least sure
# MAGIC The least sure are worth a label.

# COMMAND ----------

predictions = (
    score.latest(spark, places)
    .select("captured_at", "device", "label", "probability", "error")
    .limit(20_000)
    .toPandas()
)
workspace.display(release_plots.predictions(predictions, samples.least_sure(spark, places, 6), scored.in_words()))
