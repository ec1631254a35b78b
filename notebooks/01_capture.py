# Databricks notebook source
# MAGIC %md
# MAGIC # 1. Capture: photographs reach the landing zone
# MAGIC A camera takes a photograph and its file ends in a folder that everything else reads from. Where the photographs come from is one setting,
# MAGIC `capture.source`:
# MAGIC
# MAGIC - `simulated` (the default): a drawn front porch, with a package and without, by four cameras, by day and by night. Its label can be learnt
# MAGIC   from the package alone: not from light, time or place.
# MAGIC - `folder`: your own photographs, replayed from a folder or a bucket (`capture.path`), in class folders or named `<...>_<label>.jpg`.
# MAGIC - `landing`: devices have uploaded already (see `device/`), and nothing is copied.
# MAGIC
# MAGIC Parameters: `config`, the overlay to use (local, dev, prod); `place`, where files, tables, runs and models live, and `commit`, of the code, both
# MAGIC filled in by the job or the local runner; `set`, settings that differ (`capture.photographs=64`). Defaults: section `notebook` of
# MAGIC config/defaults.yml.
# MAGIC Reads nothing but the source; writes the landing zone.

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
# MAGIC Run again, this writes nothing twice. A file appears whole or not at all, so that a stream that reads the folder meanwhile sees no half photograph.

# COMMAND ----------

landed = capture.land(cfg, places)
workspace.report(places, "capture", {"new": landed.new, "known": landed.known, "skipped": len(landed.skipped)})
print(
    f"{landed.new} photographs landed, {landed.known} were there already",
    *([f"left out, no photographs: {landed.skipped[:5]}"] if landed.skipped else []),
    sep="\n",
)

# COMMAND ----------

# MAGIC %md
# MAGIC ## What they look like

# COMMAND ----------

workspace.display(
    plots.contact_sheet(
        samples.of_landing(places, 18), f"{landed.new + landed.known} photographs in the landing zone, 18 of them"
    )
)
