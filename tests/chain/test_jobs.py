"""The scheduled jobs of the target dev, on this machine, with the parameters that Databricks gets."""

import json
import re
import shutil

import pytest

pytestmark = [pytest.mark.chain, pytest.mark.spark]
NOTEBOOKS = ["02_ingest", "03_train", "04_deploy"]


def test_dev_targets_jobs_run_here_on_landed_photographs(chain, command, run_folder, tmp_path):
    """retrain, then score; only the places differ from Databricks. On a copy: other tests use the chain's lakehouse."""
    before, root = chain[1], tmp_path / "lakehouse"
    shutil.copytree(chain[0], root)
    settings = [
        f"storage.root={root}",
        "tuning.trials=1",
        "tuning.epochs=1",
        "training.epochs=2",
        "evaluation.control_epochs=1",
        "evaluation.explained=1",
        "deploy.parity_images=8",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = command("--target", "dev", "--job", "retrain", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    summary = json.loads((run_folder(done) / "summary.json").read_text())
    assert [(notebook["name"], notebook["status"]) for notebook in summary["notebooks"]] == [
        (name, "ok") for name in NOTEBOOKS
    ]
    assert (summary["ingest"]["new"], summary["ingest"]["images"]) == (0, 64) and summary["capture"] == before[
        "capture"
    ]
    assert summary["train"]["run_id"] != before["train"]["run_id"] and int(summary["deploy"]["version"]) > int(
        before["deploy"]["version"]
    )
    assert summary["deploy"]["parity"] < 1e-5

    champion = check_registry(root, summary)

    scored = command("--target", "dev", "--job", "score", "--set", f"storage.root={root}")
    assert scored.returncode == 0, scored.stdout[-2000:] + scored.stderr[-4000:]
    after = json.loads((run_folder(scored) / "summary.json").read_text())
    assert [(notebook["name"], notebook["status"]) for notebook in after["notebooks"]] == [
        ("02_ingest", "ok"),
        ("05_score", "ok"),
    ]
    headline = (
        rf"version {champion} scored \d+ photographs, 0 with an error"
        if champion
        else "no version serves: nothing was scored"
    )
    assert re.search(headline, scored.stdout), scored.stdout
    assert champion or not before["deploy"]["promoted"]
    assert summary["deploy"]["promoted"] == (champion == str(summary["deploy"]["version"]))
    assert after["score"]["images"] == (64 if champion else 0)


def check_registry(root, summary):
    """The run and the version name the target and its settings. Returns the champion's version, None if none."""
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    params = mlflow.get_run(summary["train"]["run_id"]).data.params
    assert (params["notebook.config"], params["capture.source"], params["storage.catalog"]) == ("dev", "landing", "")
    assert "training.epochs=2" in params["notebook.set"] and "storage.root" in params["notebook.place"]
    tags = mlflow.MlflowClient().get_model_version(summary["deploy"]["model"], summary["deploy"]["version"]).tags
    assert tags["config"] == "dev" and "training.epochs=2" in tags["set"]
    return mlflow.MlflowClient().get_registered_model(summary["deploy"]["model"]).aliases.get("champion")
