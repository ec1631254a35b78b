"""The retraining job on a small cluster: a killed executor costs a retry, but no photograph or model."""

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from lakevision.platform.workspace import REPOSITORY

pytestmark = [pytest.mark.chain, pytest.mark.spark, pytest.mark.kill, pytest.mark.slow]
MASTER = "local-cluster[2,1,2048]"
SETTINGS = (
    "capture.photographs=64",
    "tuning.trials=2",
    "tuning.epochs=8",
    "tuning.trials_on=spark",
    "training.epochs=30",
    "evaluation.control_epochs=2",
    "evaluation.explained=2",
    "deploy.calibration_images=20",
)


class Killer(threading.Thread):
    """Kills one executor of a running job at each moment. moments: {name: function that returns whether it has
    come}.
    """

    def __init__(self, process, moments):
        super().__init__(daemon=True)
        self.process, self.moments, self.killed, self.executors = process, dict(moments), {}, set()

    def run(self):
        while self.process.poll() is None and len(self.killed) < len(self.moments):
            time.sleep(0.02)
            name = next(name for name in self.moments if name not in self.killed)
            executors = executors_of(self.process.pid)
            self.executors |= {executor.pid for executor in executors}
            if executors and self.moments[name](executors):
                executors[0].kill()
                self.killed[name] = executors[0].pid


def executors_of(pid):
    """The executors' JVMs below a process, the oldest first."""
    found = []
    for child in psutil.Process(pid).children(recursive=True):
        try:
            if any("CoarseGrainedExecutorBackend" in word for word in child.cmdline()):
                found.append(child)
        except psutil.NoSuchProcess:
            continue  # the process has ended meanwhile
    return sorted(found, key=psutil.Process.create_time)


def works(executors):
    """True if the first executor has a Python worker that computes."""
    try:
        return any(
            child.cpu_times().user > 0.3 for child in executors[0].children(recursive=True) if "python" in child.name()
        )
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(scope="module")
def outcome(run_folder, tmp_path_factory):
    """The retraining job with executors killed in ingest, a trial and training: (root, run's folder, Killer,
    summary).
    """
    from lakevision.ingest import capture
    from lakevision.platform import config, workspace

    root = tmp_path_factory.mktemp("cluster")
    settings = [f"storage.root={root}", *SETTINGS, f"spark.master={MASTER}", "spark.memory=1g"]
    cfg = config.load("local", settings)
    places = workspace.places(cfg)
    capture.land(cfg, places)

    def trials_running():
        trials = [json.loads(path.read_text()) for path in root.glob("searches/*/trial-*.json")]
        return sum(trial["status"] == "running" for trial in trials)

    moments = {
        "ingest": lambda executors: Path(places.warehouse, "images", "_delta_log").is_dir() and works(executors),
        "a trial": lambda executors: trials_running() == 2,
        "training": lambda executors: any(root.glob("ranks/*/checkpoint")),
    }
    words = [word for setting in settings for word in ("--set", setting)]
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PYTHONPATH", "SPARK_LOCAL_IP", "PYSPARK_PYTHON")
    }
    process = subprocess.Popen(
        [sys.executable, str(REPOSITORY / "notebooks" / "run.py"), "--job", "retrain", *words],
        cwd=root,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    killer = Killer(process, moments)
    killer.start()
    output, _ = process.communicate(timeout=1500)
    killer.join(10)
    assert process.returncode == 0, output[-6000:]
    folder = run_folder(output, root)
    return root, folder, killer, json.loads((folder / "summary.json").read_text())


def printed(folder, notebook):
    """All output that a notebook's cells have printed."""
    cells = json.loads((folder / f"{notebook}.ipynb").read_text())["cells"]
    return "".join("".join(output.get("text", "")) for cell in cells for output in cell.get("outputs", ()))


def test_executor_was_killed_at_each_moment_and_replaced(outcome):
    _, _, killer, _ = outcome
    assert list(killer.killed) == ["ingest", "a trial", "training"] and len(killer.executors) >= 5


def test_no_photograph_is_lost_or_doubled(outcome):
    root, _, _, summary = outcome
    assert (summary["ingest"]["landed"], summary["ingest"]["images"], summary["ingest"]["rejected"]) == (64, 64, 0)


def test_trial_of_a_killed_executor_runs_again(outcome):
    import mlflow

    root, folder, _, summary = outcome
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    run = client.get_run(summary["train"]["run_id"])
    search = json.loads(Path(client.download_artifacts(run.info.run_id, "search.json")).read_text())
    assert [trial["status"] for trial in search["trials"]] == ["ok", "ok"], search
    assert [trial["attempt"] for trial in search["trials"]].count(2) == 1
    nested = client.search_runs([run.info.experiment_id], f"tags.`mlflow.parentRunId` = '{run.info.run_id}'")
    assert sorted(child.info.status for child in nested) == ["FINISHED", "FINISHED", "KILLED"]


def test_training_continues_from_the_last_complete_epoch(outcome):
    import mlflow

    root, folder, _, summary = outcome
    client = mlflow.MlflowClient(f"sqlite:///{root}/mlflow.db")
    assert "restart from the last whole epoch" in printed(folder, "03_train")
    ranks = json.loads(Path(client.download_artifacts(summary["train"]["run_id"], "ranks.json")).read_text())
    assert len(ranks["digests"]) == 2 and len(set(ranks["digests"])) == 1
    assert len(client.get_metric_history(summary["train"]["run_id"], "val_loss")) >= 30


def test_model_is_registered_and_all_paths_agree(outcome):
    _, _, _, summary = outcome
    assert summary["deploy"]["version"] == "1" and summary["deploy"]["parity"] < 1e-5
