# Databricks notebook source
# MAGIC %md
# MAGIC # 3. Train: from a fixed version of the table to a model that has been judged
# MAGIC Split by episodes, decode once into a Petastorm cache, search settings with Hyperopt in waves over Spark, train the best one on Horovod ranks,
# MAGIC and judge it on episodes that nothing has seen, beside a baseline that sees no pixel.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`. Reads `images` at one Delta version; writes `splits`, the cache and one MLflow run with the trials below it.

# COMMAND ----------

import mlflow

from lakevision import cache, evaluate, feed, plots, ranks, registry, samples, split, tables, tracking, train, tune, workspace

cfg = workspace.configuration()
where = workspace.places(cfg)
spark = workspace.spark(cfg)
experiment = tracking.start(cfg, where)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Which episodes are learnt from
# MAGIC Frames of one camera are near copies of their neighbours. Whole episodes go to one side; a split by rows would measure memory. An image stays where it
# MAGIC is for good: the table `splits` keeps it, with the reason.

# COMMAND ----------

tables.create(spark, where)
version = tables.version(spark, where, "images")
images = tables.metadata(spark, where, version)
scheme = split.scheme(cfg.split)
placed, warnings = split.assign(images, cfg.split, tables.earlier_split(spark, where, scheme))
tables.keep_split(spark, where, placed, scheme, version)
sides = split.used(placed)
print(f"images, version {version}; split {scheme}", *warnings, sep="\n")
workspace.display(placed.groupby(["split", "label"], dropna=False).agg(images=("path", "count"), episodes=("episode", "nunique")))

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the model will see
# MAGIC Through the one transform, once, into Parquet that petastorm reads. The same images, labels and sides find the same cache again.

# COMMAND ----------

pixels = cache.build(spark, cfg, where, sides, version)
print(pixels.transform, pixels.counts, pixels.classes)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The search
# MAGIC Each trial is a process of its own on a Spark executor and a nested MLflow run.

# COMMAND ----------

start = train.first_setting(cfg, pixels)
with mlflow.start_run(experiment_id=experiment, run_name="final") as run:
    tracking.record(cfg, version)
    found = tune.run(cfg, pixels, start, experiment, run.info.run_id, where.mlflow_uri)
    best = train.longer(found.best, cfg.training.epochs)
    mlflow.log_params({f"best.{name}": getattr(best, name) for name in tune.SEARCHED})
    mlflow.log_figure(plots.search(found.trials, "The search"), "search.png")
workspace.display(plots.search(found.trials, f"{len(found.trials)} trials"))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The final model, on Horovod ranks
# MAGIC Each rank takes every n-th place of the same global batches, and the gradients are averaged in one call. All ranks must end with equal weights.

# COMMAND ----------

with mlflow.start_run(run_id=run.info.run_id):
    trained = ranks.run(spark, cfg, where, pixels, best, {"uri": where.mlflow_uri, "run_id": run.info.run_id})
    mlflow.log_dict(trained.figures(), "ranks.json")
print(f"{len(trained.digests)} ranks, equal weights {trained.digests[0][:12]}; start-up {trained.start_seconds:.0f} s, training {trained.train_seconds:.0f} s")

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it is worth
# MAGIC Accuracy on held-out episodes, with an interval over episodes, beside a random forest that knows camera, day, hour and exposure and sees no pixel.
# MAGIC Where that one does as well, no accuracy on this set says that the model sees the object, and the verdict says so.

# COMMAND ----------

network = train.with_weights(best, trained.result.weights)
judged = evaluate.on_test(network, feed.load(pixels, "test"), sides, images, warnings, pixels.classes)
with mlflow.start_run(run_id=run.info.run_id):
    model_uri = registry.log(network, registry.card(cfg, pixels, run_id=run.info.run_id), samples.first(spark, where, version))
    evaluate.log(judged, network)
    picture = plots.training(trained.result.history, judged.confusion, pixels.classes,
                             f"{judged.verdict}: accuracy {judged.accuracy:.3f} [{judged.low:.3f}, {judged.high:.3f}], metadata alone {judged.metadata_baseline:.3f}")
    mlflow.log_figure(picture, "training.png")
workspace.report(where, "train", {**judged.figures(), "trials": len(found.trials), "ranks": len(trained.digests), "delta_version": version, "split_scheme": scheme,
                                  "run_id": run.info.run_id, "model_uri": model_uri, "cache": pixels.folder, "classes": pixels.classes})
print(f"verdict: {judged.verdict}", *judged.reasons, sep="\n")

# COMMAND ----------

workspace.display(picture)
