"""The folder of a run: summary.json, index.html, the report and the link to the newest run."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from lakevision.job import notebook_runner, run_folder
from lakevision.platform import config, workspace


@pytest.fixture
def places(tmp_path):
    return workspace.places(config.load("local", [f"storage.root={tmp_path / 'lakehouse'}"]))


TASKS = [SimpleNamespace(name="01_capture"), SimpleNamespace(name="02_ingest")]
DONE = [notebook_runner.Done("01_capture", 2.345, "ok")]
SCORED = {"version": "3", "images": 5, "errors": 1}


def test_summary_has_each_notebook_and_each_reported_stage(places):
    workspace.report(places, "capture", {"new": 4})
    assert run_folder.summarise(TASKS, DONE, places) == {
        "notebooks": [
            {"name": "01_capture", "seconds": 2.35, "status": "ok"},
            {"name": "02_ingest", "seconds": 0.0, "status": "not run"},
        ],
        "capture": {"new": 4},
    }


def test_newest_run_is_linked_as_latest(places, tmp_path):
    runs = tmp_path / "runs"
    first, other = run_folder.new(runs), runs / "later"
    other.mkdir()
    for folder in (first, other):
        run_folder.finish(folder, run_folder.summarise(TASKS, DONE, places), DONE, places)
        assert (runs / "latest").resolve() == folder
    assert json.loads((other / "summary.json").read_text())["notebooks"][0]["status"] == "ok"
    assert "01_capture" in (other / "index.html").read_text()
    assert not [path.name for path in runs.rglob("*") if path.name.startswith(".")]


def test_report_of_the_evaluation_is_copied(places, tmp_path):
    Path(places.figures, "report.html").write_text("evidence")
    folder = run_folder.new(tmp_path)
    run_folder.finish(folder, run_folder.summarise(TASKS, DONE, places), DONE, places)
    assert (folder / "report.html").read_text() == "evidence"


@pytest.mark.parametrize(
    "summary, names, lines",
    [
        pytest.param({}, {"01_capture"}, [], id="nothing trained"),
        pytest.param(
            {
                "train": {"verdict": "weak", "accuracy": 0.5, "metadata_baseline": 0.25},
                "deploy": {"model": "m", "version": "2", "alias": "challenger", "reason": "held back"},
            },
            {"03_train", "04_deploy", "05_score"},
            ["weak: accuracy 0.500, metadata alone 0.250", "m version 2 is challenger: held back"],
            id="trained and deployed",
        ),
        pytest.param({"score": SCORED}, {"05_score"}, ["version 3 scored 5 photographs, 1 with an error"], id="scored"),
        pytest.param(
            {"score": {**SCORED, "version": ""}},
            {"05_score"},
            ["no version serves: nothing was scored"],
            id="none serves",
        ),
    ],
)
def test_headline_names_the_result(summary, names, lines):
    assert run_folder.headline(summary, names) == lines
