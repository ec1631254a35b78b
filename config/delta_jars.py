"""Copies Delta's jars into pyspark/jars, once, so that every later session starts offline and 5 s sooner.

    .venv/bin/python config/delta_jars.py        (config/setup.sh runs this)

Spark downloads the jars through its Ivy settings, including any mirror. They are then copied from Ivy's folder.
"""

import os
import sys
import tempfile
from pathlib import Path

import pyspark
from delta import configure_spark_with_delta_pip

sys.path.append(str(Path(__file__).resolve().parents[1]))

from device import files  # noqa: E402  # the line above makes this importable

os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
os.environ["PYSPARK_PYTHON"] = sys.executable

jars = Path(pyspark.__file__).parent / "jars"
with tempfile.TemporaryDirectory() as ivy:
    builder = (
        pyspark.sql.SparkSession.builder.master("local[1]")
        .config("spark.jars.ivy", ivy)
        .config("spark.ui.enabled", "false")
    )
    configure_spark_with_delta_pip(builder).getOrCreate().stop()
    fetched = list(Path(ivy, "jars").glob("*.jar"))
    if not any(jar.name.startswith("io.delta_delta-spark") for jar in fetched):
        sys.exit(f"expected a delta-spark jar, but Spark fetched {[jar.name for jar in fetched]}")
    # Ivy prefixes the organisation: io.delta_delta-spark_2.12-3.2.0.jar. delta-spark goes last: setup.sh tests for it.
    for jar in sorted(fetched, key=lambda jar: "delta-spark" in jar.name):
        target = jars / jar.name.split("_", 1)[1]
        files.write_atomically(target, jar.read_bytes())
        print(target)
