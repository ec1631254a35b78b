"""The Spark session outside Databricks: on this machine's threads, or on a standalone, YARN or Kubernetes cluster whose nodes see the same storage.

Executors elsewhere have neither our modules nor Delta's jars nor this shell's environment: the session brings them.
"""

import os
import sys
import tempfile
import time
from pathlib import Path

from device import memory

JARS = ("delta-spark", "delta-storage")  # config/setup.sh puts them among pyspark's own; what else they need, Spark has
PATIENCE_S = 60  # for executors that are still starting, or are being replaced


def on_this_machine(master):
    """Whether a Spark master's executors run here: local[2], local-cluster[2,1,2048]."""
    return master.startswith("local")


def session(cfg, warehouse):
    """A new SparkSession on cfg.spark.master. warehouse: the folder for tables. Raises config.ConfigError for an option that is none."""
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_DRIVER_PYTHON"] = sys.executable
    os.environ["PYSPARK_PYTHON"] = cfg.spark.python or sys.executable
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    os.environ.setdefault(
        "PYTHONWARNINGS", "ignore:pkg_resources is deprecated as an API:UserWarning"
    )  # hyperopt, in every worker
    if on_this_machine(cfg.spark.master):
        os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = SparkSession.builder.master(cfg.spark.master).appName("lakevision")
    for key, value in {**settings(cfg, warehouse), **options(cfg.spark.options)}.items():
        builder = builder.config(key, value)
    made = builder.getOrCreate()
    made.sparkContext.setLogLevel("ERROR")
    # Defaults meant for large tables make these crawl: as many parts as there are slots, and not 200, 50 and 10,000.
    parts = slots(made)
    for key in (
        "spark.sql.shuffle.partitions",
        "spark.databricks.delta.snapshotPartitions",
        "spark.sql.sources.parallelPartitionDiscovery.parallelism",
    ):
        if key not in options(cfg.spark.options):
            made.conf.set(key, parts)
    return made


def settings(cfg, warehouse):
    """The Spark settings of a session, a dict of texts."""
    made = {
        "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
        "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
        "spark.driver.memory": cfg.spark.memory,
        "spark.sql.warehouse.dir": str(warehouse),
        "spark.sql.session.timeZone": "UTC",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # The simple compiler starts soonest; its code cache of 48 MB runs full after an hour of notebooks, and then nothing is compiled any more.
        "spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=512m -XX:+UseParallelGC "
        f"-Dlog4j2.configurationFile={_quiet_log4j()}",
        "spark.sql.files.openCostInBytes": "0",  # else a task for every few photographs
        "spark.python.worker.reuse": "true",
        # One slot is one core: a model in a UDF must not take all. And glibc keeps what a worker frees, see lakevision/platform/memory.py.
        "spark.executorEnv.TF_NUM_INTRAOP_THREADS": "1",
        "spark.executorEnv.TF_NUM_INTEROP_THREADS": "1",
        "spark.executorEnv.MALLOC_MMAP_THRESHOLD_": str(memory.KEPT // 2),
        "spark.executorEnv.MALLOC_TRIM_THRESHOLD_": str(memory.KEPT),
        "spark.executorEnv.TF_CPP_MIN_LOG_LEVEL": os.environ["TF_CPP_MIN_LOG_LEVEL"],
        "spark.executorEnv.PYTHONWARNINGS": os.environ["PYTHONWARNINGS"],
    }
    if not on_this_machine(cfg.spark.master):
        made["spark.jars"] = ",".join(jars())
    return made


def options(words):
    """{key: value} of the setting spark.options. Raises config.ConfigError."""
    from lakevision.platform.config import ConfigError

    made = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.startswith("spark."):
            raise ConfigError(
                f"spark.options: {word!r} is no Spark setting: expected spark.<name>=<value>, as in spark.executor.memory=4g"
            )
        made[key.strip()] = value.strip()
    return made


def jars():
    """The paths of Delta's jars on this machine. Raises FileNotFoundError."""
    import pyspark

    folder = Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent) / "jars"
    found = [str(path) for name in JARS for path in sorted(folder.glob(f"{name}*.jar"))]
    if len(found) < len(JARS):
        raise FileNotFoundError(f"{folder} lacks Delta's jars ({', '.join(JARS)}): run config/setup.sh")
    return found


def slots(spark, wanted=0):
    """Tasks that run at the same time. wanted: so many are waited for, up to PATIENCE_S, where executors may still be starting."""
    fixed = spark.sparkContext.master.partition("[")[0] == "local"
    until = time.monotonic() + (0 if fixed else PATIENCE_S)
    while (found := spark.sparkContext.defaultParallelism) < wanted and time.monotonic() < until:
        time.sleep(0.2)
    return found


def _quiet_log4j():
    path = Path(tempfile.gettempdir()) / f"lakevision-log4j2-{os.getuid()}.properties"
    path.write_text(
        "rootLogger.level = error\nrootLogger.appenderRef.console.ref = console\nappender.console.type = Console\n"
        "appender.console.name = console\nappender.console.target = SYSTEM_ERR\nappender.console.layout.type = PatternLayout\n"
        "appender.console.layout.pattern = %d{HH:mm:ss} %p %c{1}: %m%n\n"
        # pyspark-shell says that it sets a level where these two have another than the root.
        "logger.submit.name = org.apache.spark.deploy.SparkSubmit\nlogger.submit.level = error\n"
        "logger.gateway.name = org.apache.spark.api.python.PythonGatewayServer\nlogger.gateway.level = error\n"
        # As it ends, local-cluster starts executors in place of those that it stops, and says at length that it can't.
        "logger.worker.name = org.apache.spark.deploy.worker.Worker\nlogger.worker.level = off\n"
        "logger.rpc.name = org.apache.spark.network.server.TransportRequestHandler\nlogger.rpc.level = off\n"
    )
    return path
