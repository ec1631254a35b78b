"""The Spark session outside Databricks: on this machine, or on a cluster of your own.

All nodes of a cluster must see the same storage. Executors on other machines have neither our modules nor Delta's jars
nor this shell's environment: the session sends them.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from device import memory

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.platform.config import Config

JARS = ("delta-spark", "delta-storage")  # config/setup.sh adds them to pyspark's own; Spark has their dependencies
PATIENCE_S = 60  # how long slots() waits for executors that start or are being replaced
LOG4J = Path(__file__).with_name("log4j2.properties")


def on_this_machine(master: str) -> bool:
    """True if a Spark master's executors run on this machine: local[2], local-cluster[2,1,2048]."""
    return master.startswith("local")


def session(cfg: Config, warehouse: str | Path) -> SparkSession:
    """A new SparkSession on cfg.spark.master. warehouse: the folder of the tables.

    Raises config.ConfigError for a word of spark.options that is not a Spark setting.
    """
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PYSPARK_PYTHON"] = cfg.spark.python or sys.executable
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # hyperopt imports pkg_resources in every worker.
    os.environ.setdefault("PYTHONWARNINGS", "ignore:pkg_resources is deprecated as an API:UserWarning")
    if on_this_machine(cfg.spark.master):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(cfg.spark.master).appName("lakevision")
    for key, value in {**settings(cfg, warehouse), **options(cfg.spark.options)}.items():
        builder = builder.config(key, value)
    created = builder.getOrCreate()
    created.sparkContext.setLogLevel("ERROR")
    # Spark's defaults (200, 50 and 10,000 parts) are for large tables and slow these down: use one part for each slot.
    parts = slots(created)
    for key in (
        "spark.sql.shuffle.partitions",
        "spark.databricks.delta.snapshotPartitions",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism",
    ):
        if key not in options(cfg.spark.options):
            created.conf.set(key, parts)
    return created


def settings(cfg: Config, warehouse: str | Path) -> dict[str, str]:
    """The Spark settings of a session: {key: value}. Raises FileNotFoundError if Delta's jars are missing."""
    values = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": cfg.spark.memory,
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # The simple compiler starts soonest. Its code cache of 48 MB is full after an hour of notebooks, and then
        # nothing more is compiled. A file's URI has no spaces, which would split the options.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=512m -XX:+UseParallelGC "
        f"-Dlog4j2.configurationFile={LOG4J.as_uri()}",
        "spark.sql.files.openCostInBytes": "0",  # the default makes a task for every few photographs
        "spark.python.worker.reuse": "true",
        # One slot is one core: a model in a UDF must not use all. Workers keep freed memory, see device/memory.py.
        "spark.executorEnv.TF_NUM_INTRAOP_THREADS": "1",
        "spark.executorEnv.TF_NUM_INTEROP_THREADS": "1",
        "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(memory.KEPT // 2),
        "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(memory.KEPT),
        "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": os.environ["TF_CPP_MIN_LOG_LEVEL"],
        "spark.executorEnv.PYTHONWARNINGS": os.environ["PYTHONWARNINGS"],
    }
    if not on_this_machine(cfg.spark.master):
        values["spark.jars"] = ",".join(jars())
    return values


def options(words: Iterable[str]) -> dict[str, str]:
    """{key: value} of the setting spark.options. Raises config.ConfigError for a word that is not a Spark setting."""
    values = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.startswith("spark."):
            from lakevision.platform.config import ConfigError

            raise ConfigError(
                f"spark.options: {word!r} is not a Spark setting: expected spark.<name>=<value>, "
                "as in spark.executor.memory=4g"
            )
        values[key.strip()] = value.strip()
    return values


def jars() -> list[str]:
    """The paths of Delta's jars on this machine. Raises FileNotFoundError."""
    import pyspark

    folder = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"
    paths = [str(path) for name in JARS for path in sorted(folder.glob(f"{name}*.jar"))]
    if len(paths) < len(JARS):
        raise FileNotFoundError(f"{folder} lacks Delta's jars ({', '.join(JARS)}): run config/setup.sh")
    return paths


def slots(spark: SparkSession, wanted: int = 0) -> int:
    """The number of tasks that run at the same time.

    wanted: waits up to PATIENCE_S for this many, if executors may still be starting.
    """
    fixed = spark.sparkContext.master.partition("[")[0] == "local"
    deadline = time.monotonic() + (0 if fixed else PATIENCE_S)
    while (count := spark.sparkContext.defaultParallelism) < wanted and time.monotonic() < deadline:
        time.sleep(0.2)
    return count
