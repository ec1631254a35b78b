# Databricks notebook source
# MAGIC %md
# MAGIC # 1. Capture: photographs reach the landing zone
# MAGIC Cameras put photographs into one folder, the landing zone. All later notebooks start from it. The setting
# MAGIC `capture.source` names the source of the photographs:
# MAGIC
# MAGIC - `simulated` (the default): a drawn front porch, with and without a package, by four cameras, by day and by
# MAGIC   night. Only the package tells the label; light, time and place do not.
# MAGIC - `folder`: your own photographs from a folder or a bucket (`capture.path`), in class folders or named
# MAGIC   `<...>_<label>.jpg`.
# MAGIC - `landing`: devices have uploaded photographs already (see `device/`), and nothing is copied.
# MAGIC
# MAGIC Parameters: `config`, the overlay of the settings (local, dev, prod); `place`, the location of files, tables,
# MAGIC runs and models; `commit`, the version of the code; `set`, changed settings (`capture.photographs=64`). The job
# MAGIC or the local runner fills in `place` and `commit`. Defaults: section `notebook` of config/defaults.yml.
# MAGIC
# MAGIC Reads the source; writes the landing zone.

# COMMAND ----------

from lakevision.platform import workspace

workspace.check_versions()

# COMMAND ----------

from lakevision.ingest import capture
from lakevision.notebook import plots, samples

cfg = workspace.configuration()
places = workspace.places(cfg)

# COMMAND ----------

# MAGIC %md
# MAGIC ## Land them
# MAGIC A second run writes nothing twice. Each file appears complete or not at all, so a stream that reads the folder
# MAGIC at the same time never sees half a photograph.

# COMMAND ----------

landed = capture.land(cfg, places)
workspace.report(places, "capture", {"new": landed.new, "known": landed.known, "skipped": len(landed.skipped)})
print(
    f"{landed.new} photographs landed, {landed.known} were there before",
    *([f"skipped, not photographs: {landed.skipped[:5]}"] if landed.skipped else []),
    sep="\n",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## A sample of the photographs

# COMMAND ----------

workspace.display(
    plots.contact_sheet(
        samples.of_landing(places, 18), f"{landed.new + landed.known} photographs in the landing zone, 18 of them"
    )
)
