# Databricks notebook source
# MAGIC %md
# MAGIC # 4. Deploy: a version in the registry, files for the device, and proof that they agree
# MAGIC The model of the last training becomes a version in the registry. It is exported for the device, and the same raw photographs go through
# MAGIC Keras, the registered model and LiteRT on the device's own code. It becomes champion only where they agree and the evaluation lets it;
# MAGIC against the evaluation it takes somebody's explicit word, which is kept with the version: `deploy.promote_anyway="who, and why"`.
# MAGIC
# MAGIC Parameters: `config`, `place`, `set`. Reads the training run and `images`; writes a model version, its alias, and the edge folder.

# COMMAND ----------

from lakevision import deploy, parity, plots, registry, samples, tables, tracking, workspace

cfg = workspace.configuration()
where = workspace.places(cfg)
spark = workspace.spark(cfg)
tracking.start(cfg, where)
tables.create(spark, where)
training = workspace.reported(where, "train")

# COMMAND ----------

# MAGIC %md
# MAGIC ## Register, and load back by alias
# MAGIC Every model starts as challenger.

# COMMAND ----------

version = registry.register(cfg, training["model_uri"], {name: training[name] for name in ("verdict", "delta_version", "split_scheme")})
registry.set_alias(cfg, "challenger", version)
challenger = registry.load(cfg, "challenger")
held_out = samples.held_out(spark, where, training["split_scheme"], training["delta_version"], 64)
workspace.display(challenger.predict(held_out[["image"]].head(8)).assign(truth=held_out["label"].head(8)))

# COMMAND ----------

# MAGIC %md
# MAGIC ## For the device
# MAGIC float32 and int8 TensorFlow Lite, with one manifest: transform, labels, threshold, and the SHA-256 and size of each file.

# COMMAND ----------

saved = registry.files(training)
card, manifest = deploy.edge_bundle(cfg, where, training, saved, version)
workspace.display(deploy.variants(manifest))

# COMMAND ----------

# MAGIC %md
# MAGIC ## Do they agree?
# MAGIC The same bytes, four paths.

# COMMAND ----------

checked = parity.compare(list(held_out["image"]), saved.keras, challenger, where.edge, card)
decision = deploy.decide(cfg, training, checked)
alias = deploy.promote(cfg, version, decision)
workspace.report(where, "deploy", {"model": registry.name(cfg), "version": version, "alias": alias, "parity": checked.largest,
                                   "int8_agreement": checked.int8_agreement, "promoted": decision.promoted, "reason": decision.reason,
                                   "promoted_anyway": decision.word})
print(f"{registry.name(cfg)} version {version} is {alias}: {decision.reason}")

# COMMAND ----------

workspace.display(plots.paths(checked, list(held_out["image"]), list(held_out["label"]),
                              f"Four paths, {len(held_out)} held-out photographs: float32 differs by {checked.largest:.1e}, int8 agrees on {checked.int8_agreement:.1%}"))
