"""The whole chain, small, from the command line: its figures, notebooks, page, model and MLflow run."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

from lakevision.job import page_words

pytestmark = pytest.mark.chain
NOTEBOOKS = ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]


def test_chain_ends_with_its_figures(chain):
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


def test_example_query_shows_rows_and_no_bar_is_red(chain):
    _, _, folder = chain
    query = next(
        cell
        for cell in nbformat.read(folder / "02_ingest.ipynb", as_version=4).cells
        if cell.cell_type == "code" and "spark.sql(f" in cell.source
    )
    assert len(query.outputs[-1]["data"]["text/html"].split("<tr>")) > 4
    for name in NOTEBOOKS:
        for cell in nbformat.read(folder / f"{name}.ipynb", as_version=4).cells:
            red = [output for output in cell.get("outputs", ()) if output.get("name") == "stderr"]
            assert not any("it/s]" in output["text"] or "photo" in output["text"] for output in red), red


def test_page_links_to_the_report(chain):
    _, summary, folder = chain
    page, report = (folder / "index.html").read_text(), (folder / "report.html").read_text()
    assert (
        'href="report.html"' in page
        and f"<b>{summary['train']['verdict']}</b>" in report
        and summary["train"]["split_scheme"] in report
    )
    assert "<script" not in report and report.count('src="data:image/png;base64,') == report.count("src=")


def test_every_figure_on_the_page_has_words(chain):
    _, summary, folder = chain
    rows = page_words.rows(summary)
    assert [label for question, label, _ in rows if question == page_words.OTHER] == []
    page = (folder / "index.html").read_text()
    assert all(f"<h2>{question}</h2>" in page for question in page_words.QUESTIONS)
    assert "best_baseline" not in page and "metadata_baseline" not in page


def test_registered_model_loads_in_a_foreign_process(chain):
    """By alias, in a process without this library on its path: bytes, base64, and bytes that are not an image."""
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


def test_service_that_fails_to_start_names_the_reason(chain):
    from lakevision.platform import config, workspace
    from lakevision.serving.rest import local_service

    root = f"storage.root={chain[0]}"
    places = workspace.places(config.load("local", [root]))
    with (
        pytest.raises(local_service.NoService, match="lakevision.serving.rest.main ended with status 1: .*version 99"),
        local_service.service(places, "99", [root]),
    ):
        pass


def test_promote_why_names_the_version_and_the_reason(chain, command):
    reason = (
        "serves since"
        if chain[1]["deploy"]["promoted"]
        else f"version {chain[1]['deploy']['version']} was held back: {chain[1]['deploy']['reason']}"
    )
    for words in (("promote", "why"), ("--promote", "why")):
        done = command(*words, "--set", f"storage.root={chain[0]}")
        assert done.returncode == 0, done.stderr[-3000:]
        assert reason in done.stdout
        assert ("the new form is" in done.stderr) == (words[0] == "--promote")


def test_mlflow_run_holds_what_a_repeat_needs(chain):
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
