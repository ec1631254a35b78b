# Databricks notebook source
# MAGIC %md
# MAGIC # 4. Deploy: a version in the registry, proof that every path says the same, a gate, and a ledger
# MAGIC The model of the last training becomes a version in the registry. The same raw photographs, and some that are hard on purpose, go down every
# MAGIC path that serves: the training's transform and Keras, Spark, the REST service, and LiteRT on the device's own code. The version becomes
# MAGIC champion only where they agree, the evaluation lets it, and it is no worse than the champion. Against the evaluation it takes somebody's
# MAGIC explicit word, which is kept with the version: `deploy.promote_anyway="who, and why"`.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`, `commit` (see 01_capture). Reads the training run and `images`; writes a model version, its alias,
# MAGIC the edge folder and `promotions`.

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
# MAGIC Every model starts as challenger. A bad image spoils its own row only.

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
# MAGIC ## Down every path
# MAGIC The edge files are made first; then the same bytes go everywhere. The REST service runs on this machine for as long as that takes.

# COMMAND ----------

saved = model_registry.files(training)
built = edge_bundle.build(cfg, training, saved, version)
with local_service.service(places, version, workspace.given()) as url:
    agreed = parity.compare(
        spark, held_out, saved.keras, f"models:/{model_registry.name(cfg)}/{version}", challenger, url, built.folder
    )
edge_bundle.measured(built, agreed)
accuracies = parity.accuracies(evaluate.load_split(training["cache"], "test"), built.folder)
workspace.display(edge_bundle.variants(built.manifest, accuracies))

# COMMAND ----------

# MAGIC %md
# MAGIC ## The gate
# MAGIC Thresholds are settings of `deploy`. What the evaluation says can be overruled by somebody's word; paths that disagree can't.

# COMMAND ----------

edge_bundle.publish(places, built, version, training["model_uri"])
serving = model_registry.version_of(cfg, "champion")
decision = gate.decide(cfg, training, gate.checks(cfg, training, agreed, built.manifest, accuracies, serving))
workspace.display(decision.table())

# COMMAND ----------

# MAGIC %md
# MAGIC ## The ledger
# MAGIC Every decision is a row, with who or what made it and why. By hand, from the command line:
# MAGIC `bash notebooks/run.sh --promote why`, `--promote "rollback --because '...'"`, `--promote "promote 3 --because '...'"`.

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
# MAGIC By hand, here: take the `#` away, and say who and why. Against the evaluation it says so for ever; what is broken nobody can promote.

# COMMAND ----------

# promotions.promote(spark, cfg, where, "3", "A. Person", "a demonstration")
# promotions.rollback(spark, cfg, where, "", "A. Person", "it misses parcels")  # to the champion before; or to a version that was one, "2"
# print(promotions.why(spark, cfg, where))
# endpoint.follow(cfg, promotions.serving(cfg))

# COMMAND ----------

workspace.display(
    release_plots.paths(
        agreed,
        decision.table(),
        history,
        f"Version {version} is {alias}: {len(agreed.images)} images down {len(agreed.scores)} paths, {agreed.exact:.1e} apart at most in float32",
        cfg.deploy.parity_tolerance,
    )
)
