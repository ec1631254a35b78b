# Databricks notebook source
# MAGIC %md
# MAGIC # 2. Ingest: each file becomes one row
# MAGIC A stream reads what has landed since the last run and stops. A photograph becomes a row of `images`, with its bytes, its EXIF, and statistics of its
# MAGIC pixels; a file that is no usable image becomes a row of `rejected_images`, with the reason. Nothing is lost, and nothing comes in twice.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`. Reads the landing zone; writes `images` and `rejected_images`.

# COMMAND ----------

from lakevision import ingest, plots, samples, workspace

cfg = workspace.configuration()
where = workspace.places(cfg)
spark = workspace.spark(cfg)

# COMMAND ----------

done = ingest.run(spark, cfg, where)
workspace.report(where, "ingest", done.figures())
print(f"{done.new} files in {done.seconds:.1f} s; {done.landed} landed = {done.images} images + {done.rejected} rejected")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The table
# MAGIC Every column carries a comment: `DESCRIBE TABLE` shows them.

# COMMAND ----------

images = spark.table(where.table("images"))
workspace.display(images.groupBy("device").count().orderBy("device").limit(50))

# COMMAND ----------

# MAGIC %md
# MAGIC ## What was rejected, and why

# COMMAND ----------

workspace.display(spark.table(where.table("rejected_images")).groupBy("reason").count().orderBy("count", ascending=False).limit(20))

# COMMAND ----------

# MAGIC %md
# MAGIC ## When the cameras looked, and into what light
# MAGIC Labels that follow the hour, the day or the light are a trap: a model then learns the clock. 03_train asks for it.

# COMMAND ----------

workspace.display(plots.by_hour(samples.light(spark, where), f"{done.images} photographs"))
