"""The folder that a run leaves under .local/runs: summary.json, index.html and the report."""

import json
import os
import shutil
from collections.abc import Collection
from datetime import datetime
from pathlib import Path

from device import files
from lakevision.job import bundle, notebook_runner, page
from lakevision.platform import workspace

STAGES = ("capture", "ingest", "train", "deploy", "score")


def new(parent: Path) -> Path:
    """Makes a folder named by the current time, below parent."""
    folder = parent / datetime.now().strftime("%Y-%m-%dT%H%M%S.%f")[:-3]
    folder.mkdir(parents=True)
    return folder


def summarise(tasks: list[bundle.Task], done: list[notebook_runner.Done], places: workspace.Places) -> dict:
    """The content of summary.json: status and seconds of each notebook, and the figures of each stage.

    The figures of a stage that this run does not include come from an earlier run.
    """
    finished = {notebook.name: notebook for notebook in done}
    summary: dict = {"notebooks": []}
    for task in tasks:
        notebook = finished.get(task.name)
        seconds, status = (round(notebook.seconds, 2), notebook.status) if notebook else (0.0, "not run")
        summary["notebooks"].append({"name": task.name, "seconds": seconds, "status": status})
    for stage in STAGES:
        try:
            summary[stage] = workspace.reported(places, stage)
        except FileNotFoundError:
            continue  # this stage has never run
    return summary


def finish(folder: Path, summary: dict, done: list[notebook_runner.Done], places: workspace.Places) -> None:
    """Writes summary.json and index.html, copies the evaluation's report, and points `latest` at the folder."""
    report = Path(places.figures) / "report.html"
    if report.exists():
        shutil.copy(report, folder / "report.html")
    files.write_atomically(folder / "summary.json", json.dumps(summary, indent=2))
    title = f"Run of {datetime.now():%d %B %Y, %H:%M}"
    files.write_atomically(folder / "index.html", page.render(summary, done, title))
    link = folder.parent / f".latest.{os.getpid()}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")  # a link, which files.write_atomically can't write


def headline(summary: dict, names: Collection[str]) -> list[str]:
    """The result of a run in one or two lines. names: of the notebooks that ran."""
    if "05_score" in names and "04_deploy" not in names:
        figures = summary["score"]
        if not figures["version"]:
            return ["no version serves: nothing was scored"]
        return [
            f"version {figures['version']} scored {figures['images']} photographs, {figures['errors']} with an error"
        ]
    lines = []
    if "train" in summary:
        figures = summary["train"]
        baseline = figures["metadata_baseline"]
        lines.append(f"{figures['verdict']}: accuracy {figures['accuracy']:.3f}, metadata alone {baseline:.3f}")
    if "deploy" in summary:
        figures = summary["deploy"]
        lines.append(f"{figures['model']} version {figures['version']} is {figures['alias']}: {figures['reason']}")
    return lines
