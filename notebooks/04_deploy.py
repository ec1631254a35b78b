# Databricks notebook source
# MAGIC %md
# MAGIC # 4. Deploy: register a version, compare all serving paths, and decide which version serves
# MAGIC The model of the last training becomes a version in the registry. All serving paths then score the same
# MAGIC photographs and some unusual files: Keras with the training's transform, Spark, the REST service, and LiteRT in
# MAGIC the device's own code.
# MAGIC
# MAGIC The version becomes champion if three conditions hold: the paths agree, the evaluation has no objection, and the
# MAGIC version is not worse than the champion. A person can overrule the evaluation by a setting that stays with the
# MAGIC version: `deploy.promote_anyway="who, and why"`.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads the training run and `images`; writes a
# MAGIC model version, its alias, the edge folder and `promotions`.

# COMMAND ----------

from lakevision.platform import workspace

workspace.check_versions()

# COMMAND ----------

from lakevision.evaluation import evaluate
from lakevision.ingest import tables
from lakevision.notebook import samples
from lakevision.registry import model_registry, tracking
from lakevision.release import edge_bundle, gate, parity, plots as release_plots, promotions
from lakevision.serving import endpoint
from lakevision.serving.rest import local_service

cfg = workspace.configuration()
places = workspace.places(cfg)
spark = workspace.spark(cfg)
tracking.start(cfg, places)
tables.create(spark, places)
training = workspace.reported(places, "train")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Register, and load back by alias
# MAGIC Each new version starts as challenger. A bad image affects only its own row.

# COMMAND ----------

lineage = {name: training[name] for name in ("verdict", "delta_version", "split_scheme")}
version = model_registry.register(
    cfg, training["model_uri"], lineage | {"config": cfg.notebook.config, "set": cfg.notebook.set}
)
model_registry.set_alias(cfg, "challenger", version)
challenger = model_registry.load(cfg, "challenger")
held_out = samples.held_out(
    spark, places, training["split_scheme"], training["delta_version"], cfg.deploy.parity_images
)
workspace.display(challenger.predict(held_out[["image"]].head(8)).assign(truth=held_out["label"].head(8)))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Compare all paths
# MAGIC The edge files are made first; then all paths score the same bytes. The REST service runs on this machine during
# MAGIC the comparison.

# COMMAND ----------

saved = model_registry.files(training)
built = edge_bundle.build(cfg, training, saved, version)
with local_service.service(places, version, workspace.given()) as url:
    agreed = parity.compare(
        spark, held_out, saved.keras, f"models:/{model_registry.name(cfg)}/{version}", challenger, url, built.folder
    )
edge_bundle.add_measurements(built, agreed)
accuracies = parity.accuracies(evaluate.load_split(training["cache"], "test"), built.folder)
workspace.display(edge_bundle.variants(built.manifest, accuracies))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The gate
# MAGIC Thresholds are settings of `deploy`. A person can overrule the evaluation, but not a technical fault, such as
# MAGIC paths that disagree.

# COMMAND ----------

edge_bundle.publish(places, built, version, training["model_uri"])
serving = model_registry.version_of(cfg, "champion")
decision = gate.decide(cfg, training, gate.checks(cfg, training, agreed, built.manifest, accuracies, serving))
workspace.display(decision.table())

# COMMAND ----------

# MAGIC %md
# MAGIC ## The ledger
# MAGIC Each decision is a row: who or what made it, and why. From the command line:
# MAGIC `bash notebooks/run.sh promote why`, `promote 3 --because '...'`, `promote rollback --because '...'`.

# COMMAND ----------

alias = promotions.gated(spark, cfg, places, version, decision, str(serving.version) if serving else "")
history = promotions.rows(spark, places, cfg).orderBy("number").toPandas()
workspace.report(
    places,
    "deploy",
    {
        "model": model_registry.name(cfg),
        "version": version,
        "alias": alias,
        "parity": agreed.exact if agreed.exact < float("inf") else None,  # JSON has no infinity
        "int8_agreement": agreed.agreement(parity.VARIANTS["int8"]),
        "checks": len(decision.checks),
        "promoted": decision.promoted,
        "reason": decision.reason,
        "promoted_anyway": decision.word,
    },
)
workspace.display(history.drop(columns=["checks", "model"]).tail(10))
print(promotions.why(spark, cfg, places))
endpoint.follow(cfg, promotions.serving(cfg))

# COMMAND ----------

# MAGIC %md
# MAGIC By hand, in this notebook: remove the `#`, and name the person and the reason. A promotion against the
# MAGIC evaluation is marked as forced for ever. A version with a technical fault can't be promoted.

# COMMAND ----------

# promotions.promote(spark, cfg, places, "3", "A. Person", "a demonstration")
# promotions.rollback(spark, cfg, places, "", "A. Person", "it misses parcels")  # "": the champion before; or a version
# print(promotions.why(spark, cfg, places))
# endpoint.follow(cfg, promotions.serving(cfg))

# COMMAND ----------

workspace.display(
    release_plots.paths(
        agreed,
        decision.table(),
        history,
        f"Version {version} is {alias}: {len(agreed.images)} images on {len(agreed.scores)} paths, "
        f"{agreed.exact:.1e} apart at most in float32",
        cfg.deploy.parity_tolerance,
    )
)
