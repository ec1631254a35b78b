"""Databricks-source notebooks become Jupyter notebooks and run in a kernel; a failing cell is named."""

import ast

import nbformat
import pytest
from nbclient import NotebookClient

from lakevision.job import notebook_runner
from lakevision.platform.workspace import REPOSITORY

SOURCE = """# Databricks notebook source
# MAGIC %md
# MAGIC # A title

# COMMAND ----------

from lakevision.platform import workspace
print(workspace.parameter("set"))

# COMMAND ----------

# MAGIC %sql
# MAGIC SELECT 1
"""


def written(tmp_path, text):
    """A notebook file with this source."""
    path = tmp_path / "10_test.py"
    path.write_text(text)
    return path


def test_cells_become_markdown_code_and_sql_calls(tmp_path):
    markdown, code, sql = notebook_runner.cells(written(tmp_path, SOURCE))
    assert (markdown.cell_type, markdown.source) == ("markdown", "# A title")
    assert code.cell_type == "code" and code.source.startswith("from lakevision")
    assert sql.source == "workspace.display(spark.sql('SELECT 1'))"


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param("print(1)", "the first line must be", id="no header"),
        pytest.param(
            SOURCE + "\n# COMMAND ----------\n\n# MAGIC %run ./other\n",
            "cell 4: %run can't run here",
            id="unknown magic",
        ),
    ],
)
def test_unsupported_source_is_named(tmp_path, text, message):
    with pytest.raises(notebook_runner.SourceError, match=message):
        notebook_runner.cells(written(tmp_path, text))


def test_every_notebook_converts():
    for path in sorted((REPOSITORY / "notebooks").glob("[0-9]*.py")):
        compile(path.read_text(), str(path), "exec")
        cells = notebook_runner.cells(path)
        assert cells[0].cell_type == "markdown"
        assert cells[1].source == "from lakevision.platform import workspace\n\nworkspace.check_versions()"


def test_no_notebook_has_a_long_function():
    for path in sorted((REPOSITORY / "notebooks").glob("[0-9]*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 5, f"{path.name}: {node.name}"


def test_notebook_runs_with_its_parameters_and_can_run_again(tmp_path):
    text = SOURCE.split("# COMMAND ----------\n\n# MAGIC %sql")[0]
    book = notebook_runner.notebook(
        written(tmp_path, text), {"config": "local", "set": "training.epochs=3"}, REPOSITORY / "notebooks"
    )
    done = notebook_runner.execute("10_test", book, tmp_path)
    assert done.status == "ok" and (tmp_path / "10_test.html").stat().st_size > 1000
    again = nbformat.read(tmp_path / "10_test.ipynb", as_version=4)
    assert again.cells[-1].outputs[0]["text"] == "training.epochs=3\n"
    for cell in again.cells:
        cell.update({"outputs": []} if cell.cell_type == "code" else {})
    NotebookClient(again, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert again.cells[-1].outputs[0]["text"] == "training.epochs=3\n"


def test_failing_cell_is_named_with_source_and_traceback(tmp_path):
    text = (
        SOURCE.split("# COMMAND ----------\n\n# MAGIC %sql")[0]
        + "# COMMAND ----------\n\nvalue = 1\nvalue / 0\n\n# COMMAND ----------\n\nprint('never')\n"
    )
    book = notebook_runner.notebook(written(tmp_path, text), {}, REPOSITORY / "notebooks")
    done = notebook_runner.execute("10_test", book, tmp_path)
    assert done.status == "failed" and done.failure.cell == 4
    assert (
        "value / 0" in done.failure.source
        and "ZeroDivisionError" in done.failure.traceback
        and "\x1b" not in done.failure.traceback
    )
    assert (tmp_path / "10_test.ipynb").exists() and not book.cells[-1].outputs


def test_dead_kernel_is_a_failure(tmp_path):
    book = notebook_runner.notebook(
        written(tmp_path, "# Databricks notebook source\nimport os\nos._exit(3)\n"), {}, REPOSITORY / "notebooks"
    )
    done = notebook_runner.execute("10_test", book, tmp_path)
    assert done.status == "failed" and "kernel died" in done.failure.traceback and "os._exit" in done.failure.source


def test_progress_bars_are_not_red_and_warnings_stay(tmp_path):
    """tqdm writes to stderr, which HTML shows on a red background. The bar's end may come after what is printed
    next.
    """
    text = """# Databricks notebook source
import sys, time
from tqdm import tqdm
for _ in tqdm(range(3), desc="drawing"):
    time.sleep(0.3)
print("3 photographs landed")

# COMMAND ----------

print("beware", file=sys.stderr)
"""
    book = notebook_runner.notebook(written(tmp_path, text), {}, REPOSITORY / "notebooks")
    assert notebook_runner.execute("10_test", book, tmp_path).status == "ok"
    bar, warning = nbformat.read(tmp_path / "10_test.ipynb", as_version=4).cells[-2:]
    assert [output.name for output in bar.outputs] == ["stdout"]
    lines = bar.outputs[0].text.splitlines()
    assert len(lines) == 2 and lines[0].startswith("drawing: 100%") and lines[1] == "3 photographs landed"
    assert [(output.name, output.text) for output in warning.outputs] == [("stderr", "beware\n")]
    html = (tmp_path / "10_test.html").read_text()
    assert html.count('data-mime-type="application/vnd.jupyter.stderr"') == 1 and "drawing: 100%" in html
