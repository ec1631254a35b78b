# Databricks notebook source
# MAGIC %md
# MAGIC # 3. Train: from a fixed version of the table to an evaluated model
# MAGIC The steps: split by episodes; decode the images once into a Petastorm cache; test whether anything but the
# MAGIC object tells the label; search settings with Hyperopt; train the best setting on Horovod ranks. The model is
# MAGIC then evaluated on held-out episodes, beside baselines and controls that cannot see the object.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads `images` and `labels` at one Delta
# MAGIC version each; writes `splits`, the cache and one MLflow run, with the trials as nested runs.

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
from lakevision.training import ranks, loop, search, training_record

cfg = workspace.configuration()
places = workspace.places(cfg)
spark = workspace.spark(cfg)
experiment = tracking.start(cfg, places)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The split
# MAGIC Neighbouring frames of one camera are near copies. A split by rows would therefore measure memory, so whole
# MAGIC episodes go to one split. An image never changes its split: the table `splits` keeps it, with the reason.

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
# MAGIC ## The cache
# MAGIC The transform decodes each image once, into Parquet files for Petastorm. The same images, labels and splits use
# MAGIC the same cache again.

# COMMAND ----------

pixels = cache.build(spark, cfg, places, placements, version)
swept = cache.sweep(places, pixels, cfg.cache)
arrays = evaluate.load(pixels)
print(pixels.transform, pixels.counts, pixels.classes, f"{pixels.groups} row groups", f"{len(swept)} old caches swept")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Does anything but the object tell the label?
# MAGIC The candidates are day, hour, camera and its position, light, size and each EXIF field. If one of them explains
# MAGIC the label better than chance, a model may learn this shortcut instead of the object. An alarm does not stop the
# MAGIC training; it is part of the verdict.

# COMMAND ----------

checked = confounding.check(images, placements, list(arrays.values()), object_region.known(cfg))
workspace.display(checked.table().head(20))
print(*[f"alarm: the label follows the {finding.feature}" for finding in checked.alarms] or ["no alarm"], sep="\n")
print(*[f"not checked: {reason}" for reason in checked.unchecked], sep="\n")

# COMMAND ----------

# MAGIC %md
# MAGIC ## The search
# MAGIC Each trial is a nested MLflow run. Trials run on Spark's executors, in waves of processes with one thread each,
# MAGIC if many slots or long trials make this faster. Otherwise they run one after the other in the driver, with all
# MAGIC its threads. The first line below shows the measurement and the choice; `tuning.trials_on` overrides it. If the
# MAGIC driver dies, the next search continues from the finished trials.

# COMMAND ----------

start = loop.first_setting(cfg, pixels)
with mlflow.start_run(experiment_id=experiment, run_name="final") as run:
    tracking.record(cfg, version, placements, labels_version=labels_version, split_scheme=scheme)
    searched = search.tune(spark, cfg, places, pixels, start, experiment, run.info.run_id)
    best = loop.longer(searched.best, cfg.training.epochs)
    mlflow.log_params({f"best.{name}": getattr(best, name) for name in search.SEARCHED})
    picture = plots.search(searched.trials, f"The search: {len(searched.trials)} trials on {searched.kind.name}")
    mlflow.log_figure(picture, "search.png")
workspace.display(picture)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The final model, on several ranks
# MAGIC With n ranks, each rank takes every n-th image of the same global batches, and one call averages the gradients.
# MAGIC All ranks must end with equal weights. Horovod connects the ranks, or TensorFlow's collectives if Horovod is not
# MAGIC installed (`training.engine`).

# COMMAND ----------

with mlflow.start_run(run_id=run.info.run_id):
    trained = ranks.train(spark, cfg, places, pixels, best, {"uri": places.mlflow_uri, "run_id": run.info.run_id})
    mlflow.log_dict(trained.figures(), "ranks.json")
    training_record.record_training(best, trained)
print(
    f"{len(trained.digests)} ranks over {trained.engine}, equal weights {trained.digests[0][:12]}; "
    f"start-up {trained.start_seconds:.0f} s, training {trained.train_seconds:.0f} s"
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## The evaluation
# MAGIC The accuracy on held-out episodes has an interval over episodes. It is compared with three models that cannot
# MAGIC see the object: a random forest on camera, day, hour and light; the label of the nearest image in time; and the
# MAGIC same network with the object hidden. If one of them is as good, this data set can't show that the model sees the
# MAGIC object, and the verdict is "not evaluable". If the object's region is known, it is exchanged between
# MAGIC photographs: the prediction must follow the object.

# COMMAND ----------

network = loop.with_weights(best, trained.result.weights)
data = evaluate.Data(arrays, placements, images, warnings, checked, pixels.classes)
evaluation, material = evaluate.on_test(cfg, network, best, data)
material.champion = champion_comparison.compare(spark, cfg, places, material, version, scheme)
page = report.render(cfg, evaluation, material, report.made(cfg, best, pixels, placed, images, scheme), workspace.now())
unchecked = [f"not checked: {reason}" for reason in evaluation.unchecked]
print(f"verdict: {evaluation.verdict}", *evaluation.reasons, *unchecked, sep="\n")
held_out = material.probabilities, material.test.targets, material.rows["episode"].to_numpy()
workspace.display(metrics.overall(*held_out).round(3))
workspace.display(metrics.by_class(*held_out, material.classes).round(3))
workspace.display(material.slices.round(3).head(20))
print(f"champion on the same images: {material.champion or 'no model serves yet'}")

# COMMAND ----------

with mlflow.start_run(run_id=run.info.run_id):
    model_uri = model_registry.log(
        network,
        model_registry.card(cfg, pixels, run_id=run.info.run_id, split_scheme=scheme),
        samples.first(spark, places, version),
    )
    evaluate.log(evaluation, network, page)
    mlflow.log_figure(
        plots.training(trained.result.history, evaluation.confusion, pixels.classes, evaluation.verdict), "training.png"
    )
    mlflow.log_figure(evaluation_plots.overview(material, evaluation), "evaluation.png")
workspace.report(
    places,
    "train",
    {
        **evaluation.figures(),
        "trials": len(searched.trials),
        "ranks": len(trained.digests),
        "engine": trained.engine,
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
        evaluation.confusion,
        pixels.classes,
        f"{best.epochs} epochs on {len(trained.digests)} ranks",
    )
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Evidence and the worst errors
# MAGIC The report shows all results on one page. It is the artifact `report.html` of the MLflow run.

# COMMAND ----------

workspace.display(evaluation_plots.causes(material, cfg))
workspace.display(evaluation_plots.worst(material))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The figures

# COMMAND ----------

workspace.display(evaluation_plots.overview(material, evaluation))
