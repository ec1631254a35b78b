"""A foreign standalone Spark cluster: its nodes have neither Delta's jars nor this repository."""

import json
import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pyspark
import pytest

from lakevision.platform.workspace import REPOSITORY

pytestmark = [pytest.mark.spark, pytest.mark.service, pytest.mark.slow]
NOTEBOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lakevision.ingest import capture, stream
from lakevision.platform import config, workspace
cfg = config.load("local", sys.argv[2:])
places = workspace.places(cfg)
capture.land(cfg, places)
spark = workspace.spark(cfg)
done = stream.ingest(spark, cfg, places)
jars = spark.range(1).rdd.map(lambda _: __import__("os").environ["SPARK_HOME"]).collect()
print("FOUND", json.dumps({"images": done.images, "master": spark.sparkContext.master, "home": jars[0]}))
"""


def free_port():
    """A port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def process(home, log, *words):
    """Runs one of Spark's daemons in its own folder, without this process's environment."""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "SPARK_HOME": str(home),
        "SPARK_LOCAL_IP": "127.0.0.1",
        "SPARK_SCALA_VERSION": "2.12",
    }  # as Spark's own scripts set it
    with (
        open(log, "w") as out,
        subprocess.Popen(
            ["java", "-Xmx256m", "-cp", f"{home}/jars/*", *map(str, words)],
            cwd=home,
            env=environment,
            stdout=out,
            stderr=out,
        ) as daemon,
    ):
        try:
            yield
        finally:
            daemon.kill()


@pytest.fixture
def cluster(tmp_path):
    """(address of the cluster, SPARK_HOME of its nodes)."""
    home, port = tmp_path / "spark", free_port()
    (home / "jars").mkdir(parents=True)
    own = Path(pyspark.__file__).parent
    for jar in (own / "jars").iterdir():
        if not jar.name.startswith("delta"):
            (home / "jars" / jar.name).symlink_to(jar)
    for name in ("bin", "python"):
        (home / name).symlink_to(own / name)
    address = f"spark://127.0.0.1:{port}"
    deploy, log = "org.apache.spark.deploy", tmp_path / "worker.log"
    with (
        process(
            home,
            tmp_path / "master.log",
            f"{deploy}.master.Master",
            "--host",
            "127.0.0.1",
            "--port",
            port,
            "--webui-port",
            free_port(),
        ),
        process(
            home,
            log,
            f"{deploy}.worker.Worker",
            "--host",
            "127.0.0.1",
            "--cores",
            "2",
            "--memory",
            "2g",
            "--work-dir",
            tmp_path / "work",
            "--webui-port",
            free_port(),
            address,
        ),
    ):
        deadline = time.monotonic() + 90
        while "Successfully registered with master" not in log.read_text():
            assert time.monotonic() < deadline, log.read_text() + (tmp_path / "master.log").read_text()
            time.sleep(0.2)
        yield address, home


def test_executors_get_jars_and_library_from_the_driver(cluster, tmp_path):
    address, home = cluster
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYSPARK_PYTHON", "SPARK_HOME")
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            NOTEBOOK,
            str(REPOSITORY / "notebooks"),
            f"storage.root={tmp_path / 'lakehouse'}",
            f"spark.master={address}",
            f"spark.python={sys.executable}",
            "spark.memory=1g",
            "spark.options=[spark.driver.host=127.0.0.1, spark.executor.memory=1g]",
            "capture.photographs=24",
            "capture.size=64",
        ],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("FOUND")).removeprefix("FOUND ")
    )
    assert found == {"images": 24, "master": address, "home": str(home)}
