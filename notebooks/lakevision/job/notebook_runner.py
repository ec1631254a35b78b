"""Runs a Databricks-source notebook in a Jupyter kernel here and keeps it as .ipynb and HTML."""

import re
import time
from collections.abc import Callable
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
    """The cell in which a notebook stopped: its number from 1, its source, and the traceback as text."""

    cell: int
    source: str
    traceback: str


@dataclass
class Done:
    """One executed notebook. status: ok or failed; pictures: PNG files as base64 text, in order."""

    name: str
    seconds: float
    status: str
    failure: Failure | None = None
    pictures: list[str] = field(default_factory=list)


class SourceError(ValueError):
    """A file is not a Databricks-source notebook, or has a magic that can't run here; the message names the cell."""


def cells(path: str | Path) -> list[nbformat.NotebookNode]:
    """The cells of a Databricks-source notebook. Raises SourceError.

    %md becomes markdown and %sql a call. %pip becomes a note, because the set-up has installed everything.
    """
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


def notebook(path: str | Path, parameters: dict[str, str], library: str | Path) -> nbformat.NotebookNode:
    """A notebook ready to run here; its first cell sets the parameters. Raises SourceError.

    library: the folder that contains the package lakevision.
    """
    first = nbformat.v4.new_code_cell(
        "# The parameters of this run; on Databricks the job fills widgets instead.\n"
        f"import sys\nsys.path.insert(0, {str(library)!r})\nfrom lakevision.platform import workspace\n"
        f"workspace.set_parameters({', '.join(f'{key}={value!r}' for key, value in parameters.items())})"
    )
    book = nbformat.v4.new_notebook(cells=[first, *cells(path)])
    book.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return book


def execute(
    name: str,
    book: nbformat.NotebookNode,
    folder: str | Path,
    on_cell: Callable[[int, nbformat.NotebookNode], None] | None = None,
) -> Done:
    """Runs a notebook in a kernel of its own, with folder as working directory.

    Writes folder/<name>.ipynb and .html, even if a cell fails. on_cell(index, cell) is called before each code cell.
    """
    began = time.monotonic()
    client = NotebookClient(book, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    reached = 0

    def cell_starts(cell: nbformat.NotebookNode, cell_index: int) -> None:
        nonlocal reached
        reached = cell_index
        if on_cell:
            on_cell(cell_index, cell)

    client.on_cell_start = cell_starts
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


def _failure(book: nbformat.NotebookNode, index: int) -> Failure:
    cell = book.cells[index]
    error = next(output for output in cell.outputs if output["output_type"] == "error")
    return Failure(index + 1, cell.source, ANSI.sub("", "\n".join(error["traceback"])))


def _keep(name: str, book: nbformat.NotebookNode, folder: str | Path) -> None:
    from nbconvert import HTMLExporter
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    _progress_to_stdout(book)
    CoalesceStreamsPreprocessor().preprocess(book, {})  # a progress bar has a hundred states; only the last is kept
    nbformat.write(book, Path(folder, f"{name}.ipynb"))
    html, _ = HTMLExporter().from_notebook_node(book, resources={"metadata": {"name": name}})
    Path(folder, f"{name}.html").write_text(html, encoding="utf-8")


def _progress_to_stdout(book: nbformat.NotebookNode) -> None:
    """Moves progress bars from stderr to stdout: HTML shows stderr on a red background, as if something had failed.

    tqdm starts each state of a bar with a carriage return. Only the last state is kept, on a line of its own.
    Warnings stay in stderr.
    """
    for cell in book.cells:
        if cell.cell_type != "code":
            continue
        kept: list[nbformat.NotebookNode] = []
        bar = None  # the output that collects the pieces of a bar
        for output in cell.outputs:
            if output["output_type"] == "stream" and output["name"] == "stderr":
                if bar is not None and ("\r" in output["text"] or not output["text"].strip()):
                    bar["text"] += output["text"]
                    continue
                if "\r" in output["text"]:
                    bar = output
                    bar["name"] = "stdout"
            kept.append(output)
        cell.outputs = kept
        for output in kept:
            if output["output_type"] == "stream" and output["name"] == "stdout" and "\r" in output["text"]:
                lines = [line.rstrip("\r").rsplit("\r", 1)[-1].rstrip() for line in output["text"].split("\n")]
                output["text"] = "".join(f"{line}\n" for line in lines if line)
