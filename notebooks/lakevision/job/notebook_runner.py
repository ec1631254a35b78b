"""Runs a Databricks-source notebook as a Jupyter kernel session on this machine, and keeps it as .ipynb and HTML with its pictures."""

import re
import time
from dataclasses import dataclass, field
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, DeadKernelError

HEADER = "# Databricks notebook source"
SEPARATOR = re.compile(r"^# COMMAND -+\s*$", re.M)
MAGIC = re.compile(r"^# MAGIC ?", re.M)
ANSI = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Failure:
    """Where a notebook stopped: the number of the cell from 1, its source, and the traceback as text."""

    cell: int
    source: str
    traceback: str


@dataclass
class Done:
    """One executed notebook. status: ok or failed; pictures: PNG files as base64 text, in order."""

    name: str
    seconds: float
    status: str
    failure: Failure = None
    pictures: list = field(default_factory=list)


class SourceError(ValueError):
    """A file is no Databricks-source notebook, or uses a magic that can't run here; the message names file and cell."""


def cells(path):
    """The cells of a Databricks-source notebook, as nbformat cells. %md becomes markdown, %sql a call; %pip is left to set-up. Raises SourceError."""
    text = Path(path).read_text()
    if not text.startswith(HEADER):
        raise SourceError(f"{path}: the first line must be {HEADER!r}")
    made = []
    for number, part in enumerate(SEPARATOR.split(text.removeprefix(HEADER)), start=1):
        part = part.strip("\n")
        if not part.strip():
            continue
        if not part.startswith("# MAGIC"):
            made.append(nbformat.v4.new_code_cell(part))
            continue
        body = MAGIC.sub("", part)
        magic, _, rest = body.partition("\n")
        word, _, inline = magic.partition(" ")
        body = "\n".join(filter(None, (inline, rest)))
        if word == "%md":
            made.append(nbformat.v4.new_markdown_cell(body))
        elif word == "%sql":
            made.append(nbformat.v4.new_code_cell(f"workspace.display(spark.sql({body.strip().rstrip(';')!r}))"))
        elif word == "%pip":
            made.append(
                nbformat.v4.new_markdown_cell(f"`{magic}` runs on Databricks; here `config/setup.sh` has done it.")
            )
        else:
            raise SourceError(f"{path}, cell {number}: {word} can't run here; %md, %sql and %pip can")
    return made


def notebook(path, parameters, library):
    """A notebook ready to run here: its cells, behind one that sets the parameters. library: the folder that lakevision lies in."""
    first = nbformat.v4.new_code_cell(
        "# The parameters of this run; on Databricks the job fills widgets instead.\n"
        f"import sys\nsys.path.insert(0, {str(library)!r})\nfrom lakevision.platform import workspace\n"
        f"workspace.set_parameters({', '.join(f'{key}={value!r}' for key, value in parameters.items())})"
    )
    made = nbformat.v4.new_notebook(cells=[first, *cells(path)])
    made.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return made


def execute(name, book, folder, on_cell=None):
    """Runs a notebook in a kernel of its own, in folder; writes folder/<name>.ipynb and .html even when a cell fails. Returns Done.

    on_cell(index, cell): called before each code cell.
    """
    began = time.monotonic()
    client = NotebookClient(book, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    reached = 0

    def entered(cell, cell_index):
        nonlocal reached
        reached = cell_index
        if on_cell:
            on_cell(cell_index, cell)

    client.on_cell_start = entered
    failure = None
    try:
        client.execute()
    except CellExecutionError:
        failure = _failure(book, reached)
    except DeadKernelError:
        failure = Failure(
            reached + 1, book.cells[reached].source, "the kernel died: was it killed, or did it run out of memory?"
        )
    finally:
        _keep(name, book, folder)
    pictures = [
        output["data"]["image/png"]
        for cell in book.cells
        for output in cell.get("outputs", ())
        if "image/png" in output.get("data", {})
    ]
    return Done(name, time.monotonic() - began, "failed" if failure else "ok", failure, pictures)


def _failure(book, index):
    cell = book.cells[index]
    error = next(output for output in cell.outputs if output["output_type"] == "error")
    return Failure(index + 1, cell.source, ANSI.sub("", "\n".join(error["traceback"])))


def _keep(name, book, folder):
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    CoalesceStreamsPreprocessor().preprocess(book, {})  # a progress bar is a hundred pieces: its last state is kept
    nbformat.write(book, Path(folder, f"{name}.ipynb"))
    html, _ = HTMLExporter().from_notebook_node(book, resources={"metadata": {"name": name}})
    Path(folder, f"{name}.html").write_text(html, encoding="utf-8")
