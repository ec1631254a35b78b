"""The whole chain, small, from the command line: what it leaves behind, and what happens when it is resumed, broken or stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import psutil
import pytest

from lakevision.platform.workspace import REPOSITORY

NOTEBOOKS = ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]


def test_the_chain_ends_with_its_figures(chain):
    root, summary, folder = chain
    assert [(notebook["name"], notebook["status"]) for notebook in summary["notebooks"]] == [
        (name, "ok") for name in NOTEBOOKS
    ]
    assert (summary["ingest"]["landed"], summary["ingest"]["images"], summary["ingest"]["rejected"]) == (64, 64, 0)
    train, deploy = summary["train"], summary["deploy"]
    assert (
        (train["trials"], train["ranks"]) == (2, 2)
        and 0 <= train["accuracy"] <= 1
        and 0 <= train["metadata_baseline"] <= 1
    )
    assert train["verdict"] in ("evaluable", "weak", "not evaluable") and train["delta_version"] >= 1
    assert {
        "nearest_baseline",
        "context_only",
        "swap_followed",
        "confounders",
        "unchecked",
        "leakage",
        "split_scheme",
        "region",
    } <= set(train)
    assert (
        train["region"].endswith("(simulated)")
        and not train["confounders"]
        and train["leakage"]["random_split"] > train["leakage"]["episodes"]
    )
    assert (
        deploy["parity"] < 1e-5
        and deploy["alias"] == ("champion" if deploy["promoted"] else "challenger")
        and deploy["reason"]
    )
    assert deploy["checks"] == 11 and summary["score"]["images"] == (64 if deploy["promoted"] else 0)


def test_every_notebook_is_kept_and_ends_in_a_picture(chain):
    _, _, folder = chain
    page = (folder / "index.html").read_text()
    for name in NOTEBOOKS:
        book = nbformat.read(folder / f"{name}.ipynb", as_version=4)
        last = [cell for cell in book.cells if cell.cell_type == "code"][-1]
        assert any("image/png" in output.get("data", {}) for output in last.outputs), (
            f"{name} does not end in a picture"
        )
        assert (folder / f"{name}.html").stat().st_size > 50_000 and f'href="{name}.html"' in page
    assert page.count("data:image/png;base64") == len(NOTEBOOKS)


def test_the_page_leads_to_the_report(chain):
    _, summary, folder = chain
    page, report = (folder / "index.html").read_text(), (folder / "report.html").read_text()
    assert (
        'href="report.html"' in page
        and f"<b>{summary['train']['verdict']}</b>" in report
        and summary["train"]["split_scheme"] in report
    )
    assert "<script" not in report and report.count('src="data:image/png;base64,') == report.count("src=")


def test_the_registry_gives_back_what_was_trained(chain):
    """By alias, in a process that has nothing of ours on its path: bytes, base64, and an image that is none."""
    root, summary, _ = chain
    photograph = next(path for path in sorted((root / "landing").rglob("*.jpg")))
    script = f"""
import base64, json, sys
import mlflow, pandas as pd
mlflow.set_tracking_uri("sqlite:///{root}/mlflow.db")
model = mlflow.pyfunc.load_model("models:/{summary["deploy"]["model"]}@challenger")
data = open({str(photograph)!r}, "rb").read()
rows = model.predict(pd.DataFrame({{"image": [data, b"no image", data]}}))
text = model.unwrap_python_model().predict(None, pd.DataFrame({{"image": [base64.b64encode(data).decode(), "%%%"]}}))
print(json.dumps([rows.to_dict("records"), text.to_dict("records")]))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=root,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    rows, text = json.loads(done.stdout.splitlines()[-1])
    assert rows[0]["label"] in ("empty", "package") and rows[0]["error"] is None and rows[0] == rows[2]
    assert (
        sum(rows[0]["scores"]) == pytest.approx(1, abs=1e-5) and max(rows[0]["scores"]) >= rows[0]["probability"] - 1e-9
    )
    assert rows[1]["label"] is None and "not an image" in rows[1]["error"]
    assert text[0] == rows[0] and "not base64" in text[1]["error"]


def test_keras_and_litert_agree_on_the_devices_own_code(chain):
    import mlflow
    import numpy as np
    import tensorflow as tf

    from device.model import edge_model, transform

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    keras = tf.keras.models.load_model(
        mlflow.artifacts.download_artifacts(run_id=summary["train"]["run_id"], artifact_path="keras/model.keras")
    )
    folder = edge_model.folder(root / "edge", "challenger")
    manifest = edge_model.read_manifest(folder)
    sizes = manifest["variants"]
    loaded = {variant: edge_model.load(folder, variant) for variant in sizes}
    assert (
        manifest["version"] == summary["deploy"]["version"]
        and manifest["lineage"]["run_id"] == summary["train"]["run_id"]
    )
    assert (
        sizes["int8"]["bytes"] < 0.4 * sizes["float32"]["bytes"]
        and sizes["float16"]["bytes"] < 0.6 * sizes["float32"]["bytes"]
    )
    side = transform.image_size(manifest["transform"])
    for photograph in sorted((root / "landing").rglob("*.jpg"))[:12]:
        data = photograph.read_bytes()
        pixels = np.frombuffer(transform.pixels(data, manifest["transform"]), np.uint8).reshape(1, side, side, 3)
        expected = np.asarray(keras(pixels.astype(np.float32), training=False))[0]
        assert edge_model.probabilities(loaded["float32"], data) == pytest.approx(expected, abs=1e-5)
        assert edge_model.probabilities(loaded["float16"], data) == pytest.approx(expected, abs=0.01)
        assert edge_model.probabilities(loaded["int8"], data) == pytest.approx(expected, abs=0.2)
    assert len(manifest["golden"]) >= 4
    for golden in manifest["golden"]:
        data = Path(folder, golden["file"]).read_bytes()
        for variant, scores in golden["scores"].items():
            assert edge_model.probabilities(loaded[variant], data) == pytest.approx(scores, abs=1e-6)


def test_the_edge_files_lie_beside_the_model_in_mlflow_too(chain):
    import mlflow

    from device.model import edge_model

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    source = mlflow.MlflowClient().get_model_version_download_uri(
        summary["deploy"]["model"], summary["deploy"]["version"]
    )
    fetched = Path(mlflow.artifacts.download_artifacts(f"{source}/edge/{summary['deploy']['version']}"))
    published = Path(edge_model.folder(root / "edge", "challenger"))
    names = {path.relative_to(published) for path in published.rglob("*") if path.is_file()}
    assert len(names) > 8 and names == {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert all((published / name).read_bytes() == (fetched / name).read_bytes() for name in names)


def test_paths_that_differ_hold_a_version_back_and_their_pictures_are_shown(chain, command, tmp_path):
    """04_deploy again, on the same training, with a tolerance that rounding passes: version 2 of it, which leaves version 1 as it was."""
    import shutil

    root = tmp_path / "lakehouse"
    shutil.copytree(chain[0], root)
    edge = {path: path.read_bytes() for path in (root / "edge" / "versions" / "1").rglob("*") if path.is_file()}
    done = command(
        "--only",
        "04_deploy",
        "--set",
        f"storage.root={root}",
        "--set",
        "deploy.parity_tolerance=1.0e-12",
        "--set",
        "deploy.promote_anyway='A, so'",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    told = json.loads((REPOSITORY / ".local/runs/latest/summary.json").read_text())["deploy"]
    assert (told["version"], told["alias"], told["promoted"]) == ("2", "challenger", False)
    assert "against Keras" in told["reason"] and "wanted: 1e-12 at most" in told["reason"] and 0 < told["parity"] < 1e-5
    assert (
        edge
        and {path: path.read_bytes() for path in edge} == edge
        and (root / "edge" / "versions" / "2" / "manifest.json").exists()
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        pytest.param(
            lambda folder: _flip_a_bit(folder / "int8.tflite"), "not those of the manifest", id="a flipped bit"
        ),
        pytest.param(
            lambda folder: (folder / "int8.tflite").write_bytes(b"<html>"), "not those of the manifest", id="HTML"
        ),
        pytest.param(lambda folder: (folder / "int8.tflite").unlink(), "int8.tflite", id="missing file"),
        pytest.param(lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json", id="half a manifest"),
        pytest.param(
            lambda folder: (folder / "manifest.json").write_text('{"schema_version": 9}'),
            "schema_version",
            id="a later schema",
        ),
        pytest.param(
            lambda folder: (folder / "manifest.json").write_text('{"schema_version": 2}'),
            "classes, golden",
            id="keys missing",
        ),
    ],
)
def test_the_device_refuses_a_model_it_can_not_trust(chain, tmp_path, spoil, message):
    import shutil

    from device.model import edge_model

    folder = tmp_path / "edge"
    shutil.copytree(edge_model.folder(chain[0] / "edge", "challenger"), folder)
    assert edge_model.load(folder, "int8")
    spoil(folder)
    with pytest.raises(edge_model.BadModel, match=message):
        edge_model.load(folder, "int8")


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_service_that_does_not_come_up_says_why(chain):
    from lakevision.platform import config, workspace
    from lakevision.serving.rest import local_service

    root = f"storage.root={chain[0]}"
    with pytest.raises(local_service.NoService, match="lakevision.serving.rest.main ended with status 1: .*version 99"):
        with local_service.service(workspace.places(config.load("local", [root])), "99", [root]):
            pass


def test_the_readmes_command_says_why_this_version_serves_or_none_does(chain, command):
    done = command("--promote", "why", "--set", f"storage.root={chain[0]}")
    assert done.returncode == 0, done.stderr[-3000:]
    said = (
        "serves since"
        if chain[1]["deploy"]["promoted"]
        else f"version {chain[1]['deploy']['version']} was held back: {chain[1]['deploy']['reason']}"
    )
    assert said in done.stdout


def test_the_run_carries_what_it_can_be_repeated_from(chain):
    import mlflow

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    run = mlflow.get_run(summary["train"]["run_id"])
    assert run.info.status == "FINISHED"
    assert (
        run.data.params["delta_version"] == str(summary["train"]["delta_version"])
        and run.data.params["training.epochs"] == "6"
    )
    assert run.data.tags["commit"] and run.data.tags["verdict"] == summary["train"]["verdict"]
    assert len(mlflow.MlflowClient().get_metric_history(run.info.run_id, "val_loss")) == 6
    names = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
    assert {
        "training.png",
        "search.png",
        "evaluation.json",
        "evaluation.png",
        "report.html",
        "versions.json",
        "ranks.json",
        "keras",
    } <= names


def test_resuming_runs_the_rest_alone_and_adds_nothing(chain, command):
    root, before, _ = chain
    done = command("--only", "02_ingest", "--set", f"storage.root={root}")
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads((REPOSITORY / ".local/runs/latest/summary.json").read_text())
    assert [notebook["name"] for notebook in after["notebooks"]] == ["02_ingest"]
    assert after["ingest"]["images"] == 64 and after["ingest"]["new"] == 0 and after["train"] == before["train"]


def test_a_failing_cell_ends_the_run_with_its_name_and_keeps_what_was_done(command, tmp_path):
    done = command(
        "--set",
        f"storage.root={tmp_path}",
        "--set",
        "capture.photographs=4",
        "--set",
        "capture.size=64",
        "--set",
        "training.transform='decode|rgb|nonsense|resize(32)'",
        "--from",
        "01_capture",
    )
    assert done.returncode == 1
    assert "03_train failed in cell" in done.stderr and "Put the images into class folders" in done.stderr
    summary = json.loads((REPOSITORY / ".local/runs/latest/summary.json").read_text())
    assert [notebook["status"] for notebook in summary["notebooks"]] == ["ok", "ok", "failed", "not run", "not run"]
    assert summary["ingest"]["images"] == 4 and (tmp_path / "warehouse" / "images").is_dir()
    assert "stopped in cell" in (REPOSITORY / ".local/runs/latest/index.html").read_text()


@pytest.mark.parametrize(
    "arguments, message",
    [
        pytest.param(["--only", "09_none"], "has 01_capture", id="unknown notebook"),
        pytest.param(["--set", "training.epoch=3"], "did you mean 'epochs'", id="unknown setting"),
        pytest.param(["--images", "/nowhere/at/all"], "no such folder", id="no folder"),
        pytest.param(["--target", "moon"], "there are dev, local, prod", id="unknown target"),
        pytest.param(["--fresh", "--set", "storage.root=/tmp"], "below .local only", id="fresh outside .local"),
    ],
)
def test_a_wrong_command_line_says_what_to_do(command, arguments, message):
    done = command(*arguments)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr


def test_ctrl_c_leaves_no_process_behind(tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "notebooks/run.py"),
            "--only",
            "02_ingest",
            "--set",
            f"storage.root={tmp_path}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    tree = []
    for _ in range(600):  # until the kernel has started its JVM
        tree = psutil.Process(process.pid).children(recursive=True)
        if any(child.name() == "java" for child in tree):
            break
        time.sleep(0.1)
    else:
        pytest.fail("no JVM came up")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive, [child.cmdline() for child in alive]
    assert Path(REPOSITORY, ".local/runs/latest/summary.json").exists()
