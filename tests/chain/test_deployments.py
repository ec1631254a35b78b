"""Driver, Spark UDF, trial and Horovod rank import the library, from a Git folder, a bundle or here."""

import json
import os
import shutil
import subprocess
import sys
from fnmatch import fnmatch
from pathlib import Path

import pytest

from lakevision.job import bundle
from lakevision.platform.workspace import REPOSITORY

pytestmark = [pytest.mark.spark, pytest.mark.slow]
# Like a notebook: sys.path has the notebook's own folder, and no other folder of the repository. Executors are JVMs.
NOTEBOOK = """
import json, sys
sys.path.insert(0, sys.argv[1])
import cloudpickle, horovod.spark, numpy as np, pickle
from hyperopt import STATUS_OK, SparkTrials, fmin, hp, rand
from lakevision.platform import config, workspace
from lakevision.training.engines import horovod_ranks

def origins(_=None):
    import os
    import device, lakevision
    from device.model import transform
    from lakevision.training import loop
    return {"lakevision": lakevision.__file__, "device": device.__file__, "folder": os.getcwd(),
            "image_size": transform.image_size("decode|rgb|resize(32)"), "fit": loop.fit.__name__}

cfg = config.load("local", sys.argv[2:])
found = {"driver": origins(), "config": str(config.FOLDER)}
spark = workspace.spark(cfg)
workspace.spark(cfg)  # again, like the next notebook of a job: on a cluster, notebooks share one Spark context
found["UDF"] = json.loads(spark.range(1).rdd.map(lambda _: json.dumps(origins())).collect()[0])
trials = SparkTrials(1, spark_session=spark)
fmin(lambda x: {"loss": x, "status": STATUS_OK, "origins": origins()}, hp.uniform("x", 0, 1), rand.suggest, 1,
     trials=trials, rstate=np.random.default_rng(0), show_progressbar=False, verbose=False)
found["trial"] = trials.results[0]["origins"]
arguments = (workspace.library(), cloudpickle.dumps((origins, None)))
results = horovod.spark.run(horovod_ranks.entry(), args=arguments, num_proc=1, use_gloo=True, verbose=0)
found["rank"] = pickle.loads(results[0])
print("FOUND", json.dumps(found))
"""


def git_folder(place):
    """Copies the repository like a Git folder of Databricks: all tracked files, and .git."""
    subprocess.run(["git", "clone", "-q", "--no-hardlinks", str(REPOSITORY), str(place)], check=True)
    for name in listed("-mo"):
        place.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / name, place / name)


def bundle_deployment(place):
    """Copies the repository like `databricks bundle deploy`: all files but those that git or sync.exclude leave out."""
    left_out = bundle.read().get("sync", {}).get("exclude", [])
    for name in listed("-co"):
        if not any(fnmatch(name, pattern) or fnmatch(name, f"{pattern.rstrip('/')}/*") for pattern in left_out):
            place.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(REPOSITORY / name, place / name)


def listed(selection):
    """Names of the repository's files: -co all but the ignored ones, -mo those that differ from the last commit."""
    command = ["git", "-C", str(REPOSITORY), "ls-files", selection, "--exclude-standard"]
    names = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    return [name for name in names if (REPOSITORY / name).is_file()]


@pytest.mark.parametrize(
    "deploy, master",
    [
        pytest.param(git_folder, "local-cluster[1,1,1024]", id="a Git folder"),
        pytest.param(bundle_deployment, "local-cluster[1,1,1024]", id="a bundle"),
        pytest.param(None, "local[2]", id="this machine"),
    ],
)
def test_every_process_imports_the_library(tmp_path, deploy, master):
    place, elsewhere = REPOSITORY, tmp_path / "elsewhere"
    elsewhere.mkdir()
    if deploy:
        place = tmp_path / "files"
        place.mkdir()
        deploy(place)
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "PYSPARK_PYTHON", "SPARK_LOCAL_IP")
    }
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            NOTEBOOK,
            str(place / "notebooks"),
            f"storage.root={tmp_path / 'lakehouse'}",
            f"spark.master={master}",
            "spark.memory=1g",
        ],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(
        next(line for line in done.stdout.splitlines() if line.startswith("FOUND")).removeprefix("FOUND ")
    )
    assert found.pop("config") == str(place / "config")
    driver = found.pop("driver")
    assert (driver["lakevision"], driver["device"]) == (
        str(place / "notebooks/lakevision/__init__.py"),
        str(place / "device/__init__.py"),
    )
    assert set(found) == {"UDF", "trial", "rank"}
    for process, origin in found.items():
        assert "lakevision_library" in origin["lakevision"] and "lakevision_library" in origin["device"], (
            process,
            origin,
        )
        assert origin["image_size"] == 32 and origin["fit"] == "fit"
    if deploy:
        assert not Path(found["UDF"]["folder"]).is_relative_to(elsewhere), (
            "the worker must not start in the driver's folder"
        )
