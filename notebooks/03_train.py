# Databricks notebook source
# MAGIC %md
# MAGIC # 3. Train: from a fixed version of the table to a model that has been judged
# MAGIC Split by episodes, ask what else could tell the label, decode once into a Petastorm cache, search settings with Hyperopt in waves over Spark,
# MAGIC train the best one on Horovod ranks, and judge it on episodes that nothing has seen, beside baselines and controls that cannot see the object.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads `images` at one Delta version; writes `splits`, the cache and one MLflow
# MAGIC run with the trials below it.

# COMMAND ----------

from lakevision.platform import workspace

workspace.check_versions()

# COMMAND ----------

import mlflow

from lakevision.dataset import cache, object_region, split, split_table
from lakevision.evaluation import confounding, evaluate, metrics, plots as evaluation_plots, report
from lakevision.ingest import tables
from lakevision.notebook import plots, samples
from lakevision.registry import model_registry, tracking
from lakevision.release import champion_comparison
from lakevision.training import horovod_ranks, loop, search, training_record

cfg = workspace.configuration()
places = workspace.places(cfg)
spark = workspace.spark(cfg)
experiment = tracking.start(cfg, places)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Which episodes are learnt from
# MAGIC Frames of one camera are near copies of their neighbours. Whole episodes go to one side; a split by rows would measure memory. An image stays
# MAGIC where it is for good: the table `splits` keeps it, with the reason.

# COMMAND ----------

tables.create(spark, places)
version = tables.version(spark, places, "images")
labels_version = tables.version(spark, places, "labels")
images = split_table.metadata(spark, places, version, labels_version)
scheme = split.scheme(cfg.split)
placed, warnings = split.assign(images, cfg.split, split_table.earlier_split(spark, places, scheme))
split_table.keep_split(spark, places, placed, scheme, version)
placements = split.used(placed)
print(f"images, version {version}; labels, version {labels_version}; split {scheme}", *warnings, sep="\n")
workspace.display(
    placed.groupby(["split", "label"], dropna=False).agg(images=("path", "count"), episodes=("episode", "nunique"))
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What the model will see
# MAGIC Through the one transform, once, into Parquet that petastorm reads. The same images, labels and sides find the same cache again.

# COMMAND ----------

pixels = cache.build(spark, cfg, places, placements, version)
swept = cache.sweep(places, pixels, cfg.cache)
arrays = evaluate.load(pixels)
print(pixels.transform, pixels.counts, pixels.classes, f"{pixels.groups} row groups", f"{len(swept)} old caches swept")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Could anything but the object tell the label?
# MAGIC Day, hour, camera and where it points, light, size, each EXIF field: what explains the label beyond chance is a shortcut that a model may
# MAGIC learn instead of the object. An alarm does not stop the training; it is part of the verdict.

# COMMAND ----------

checked = confounding.check(images, placements, list(arrays.values()), object_region.known(cfg))
workspace.display(checked.table().head(20))
print(*[f"alarm: the label follows the {finding.feature}" for finding in checked.alarms] or ["no alarm"], sep="\n")
print(*[f"not checked: {reason}" for reason in checked.unchecked], sep="\n")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The search
# MAGIC Each trial is a nested MLflow run. Where many slots or long trials make it pay, trials run in waves of processes on Spark's executors, one thread
# MAGIC each; elsewhere one after the other in the driver, with all its threads. The first line below says what was measured for that, and what it chose;
# MAGIC `tuning.trials_on` overrides it. A search whose driver died goes on from the trials that had finished.

# COMMAND ----------

start = loop.first_setting(cfg, pixels)
with mlflow.start_run(experiment_id=experiment, run_name="final") as run:
    tracking.record(cfg, version, placements, labels_version=labels_version, split_scheme=scheme)
    found = search.tune(spark, cfg, places, pixels, start, experiment, run.info.run_id)
    best = loop.longer(found.best, cfg.training.epochs)
    mlflow.log_params({f"best.{name}": getattr(best, name) for name in search.SEARCHED})
    picture = plots.search(found.trials, f"The search: {len(found.trials)} trials on {found.kind.name}")
    mlflow.log_figure(picture, "search.png")
workspace.display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The final model, on Horovod ranks
# MAGIC Each rank takes every n-th place of the same global batches, and the gradients are averaged in one call. All ranks must end with equal
# MAGIC weights.

# COMMAND ----------

with mlflow.start_run(run_id=run.info.run_id):
    trained = horovod_ranks.train(
        spark, cfg, places, pixels, best, {"uri": places.mlflow_uri, "run_id": run.info.run_id}
    )
    mlflow.log_dict(trained.figures(), "ranks.json")
    training_record.record_training(best, trained)
print(
    f"{len(trained.digests)} ranks, equal weights {trained.digests[0][:12]}; start-up {trained.start_seconds:.0f} s, training {trained.train_seconds:.0f} s"
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it is worth
# MAGIC Accuracy on held-out episodes, with an interval over episodes, beside a random forest that knows camera, day, hour and light and sees no
# MAGIC pixel, the nearest image in time, and the same network with the object hidden. Where one of those does as well, no accuracy on this set says
# MAGIC that the model sees the object, and the verdict says so. Where the object's region is known, it is exchanged between photographs: the
# MAGIC prediction must follow it.

# COMMAND ----------

network = loop.with_weights(best, trained.result.weights)
judged, material = evaluate.on_test(cfg, network, best, arrays, placements, images, warnings, checked, pixels.classes)
material.champion = champion_comparison.compare(spark, cfg, places, material, version, scheme)
page = report.render(cfg, judged, material, report.made(cfg, best, pixels, placed, images, scheme), workspace.now())
print(
    f"verdict: {judged.verdict}", *judged.reasons, *[f"not checked: {reason}" for reason in judged.unchecked], sep="\n"
)
workspace.display(
    metrics.overall(material.probabilities, material.test.targets, material.rows["episode"].to_numpy()).round(3)
)
workspace.display(
    metrics.by_class(
        material.probabilities, material.test.targets, material.rows["episode"].to_numpy(), material.classes
    ).round(3)
)
workspace.display(material.slices.round(3).head(20))
print(f"champion on the same images: {material.champion or 'no model serves yet'}")

# COMMAND ----------

with mlflow.start_run(run_id=run.info.run_id):
    model_uri = model_registry.log(
        network,
        model_registry.card(cfg, pixels, run_id=run.info.run_id, split_scheme=scheme),
        samples.first(spark, places, version),
    )
    evaluate.log(judged, network, page)
    mlflow.log_figure(
        plots.training(trained.result.history, judged.confusion, pixels.classes, judged.verdict), "training.png"
    )
    mlflow.log_figure(evaluation_plots.overview(material, judged), "evaluation.png")
workspace.report(
    places,
    "train",
    {
        **judged.figures(),
        "trials": len(found.trials),
        "ranks": len(trained.digests),
        "delta_version": version,
        "labels_version": labels_version,
        "split_scheme": scheme,
        "champion": material.champion,
        "report": report.keep(places, page),
        "run_id": run.info.run_id,
        "model_uri": model_uri,
        "cache": pixels.folder,
        "classes": pixels.classes,
    },
)
workspace.display(
    plots.training(
        trained.result.history,
        judged.confusion,
        pixels.classes,
        f"{best.epochs} epochs on {len(trained.digests)} ranks",
    )
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What it has learnt from, and the worst errors
# MAGIC The report, one page with all of this, is the run's artifact `report.html`.

# COMMAND ----------

workspace.display(evaluation_plots.causes(material, cfg))
workspace.display(evaluation_plots.worst(material))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The figures

# COMMAND ----------

workspace.display(evaluation_plots.overview(material, judged))
