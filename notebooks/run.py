"""Runs the bundle's jobs on this machine: the notebooks of databricks.yml, with their parameters.

    bash notebooks/run.sh                                # the job tour: all notebooks, on simulated photographs
    bash notebooks/run.sh --images FOLDER                # on your own photographs
    bash notebooks/run.sh --from 03_train --set training.epochs=3
    bash notebooks/run.sh --only 02_ingest
    bash notebooks/run.sh --target dev --job retrain     # a scheduled job as on Databricks, on what has landed here
    bash notebooks/run.sh serve                          # the champion as a REST service, until Ctrl-C
    bash notebooks/run.sh promote why                    # why this version serves; also list, promote, rollback
    bash notebooks/run.sh repeat RUN_ID                  # train an MLflow run again from its record, and compare

Without a command, `run` is meant. Each command has a --help of its own: bash notebooks/run.sh serve --help

Executed notebooks, their HTML, index.html and summary.json are kept under .local/runs/<time>/. The link
.local/runs/latest leads to the newest.

Exit status: 0; 1 if a cell fails, if nothing was promoted (with --require-promotion), or if a repeat is impossible or
does not agree; 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import os
import sys
import time
from pathlib import Path

NOTEBOOKS = Path(__file__).resolve().parent
sys.path.insert(0, str(NOTEBOOKS))

import nbformat  # noqa: E402
from tqdm import tqdm  # noqa: E402

from lakevision.job import bundle, command_line, notebook_runner, plan, processes, run_folder  # noqa: E402
from lakevision.platform import config  # noqa: E402

WRONG = (bundle.BundleError, config.ConfigError, notebook_runner.SourceError, FileNotFoundError, plan.OutsideLocal)


def main(words: list[str] | None = None) -> int:
    """Runs one command. words: the arguments, by default those of this process. Returns the exit status."""
    given = command_line.parse(words)
    try:
        lake = plan.lakehouse(given.images, given.target, given.set)
        if given.command == "run":
            tasks = plan.tasks(given, lake)
            if given.fresh:
                plan.forget(lake.places.root)
    except WRONG as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    if given.command == "repeat":
        return repeat(given.run_id, lake.cfg)
    if given.command == "promote":
        from lakevision.release import cli

        return cli.main(command_line.promotion_words(given), lake.cfg, f"{command_line.PROGRAM} promote")
    if given.command == "serve":
        from lakevision.serving.rest import main as rest_main

        return rest_main.serve(lake.cfg, given.version, given.version if given.version.isdigit() else "")
    return run(given, tasks, lake)


def run(given: argparse.Namespace, tasks: list[bundle.Task], lake: plan.Lakehouse) -> int:
    """Runs the notebooks of a job and keeps them with their page. Returns the exit status."""
    folder, places = run_folder.new(plan.LOCAL / "runs"), lake.places
    processes.interrupt_on_signals()
    done: list[notebook_runner.Done] = []
    try:
        with processes.temporary_folder():
            run_notebooks(tasks, folder, done)
    except KeyboardInterrupt:
        print("\nstopped; the work of finished notebooks is kept", file=sys.stderr)
        return 130
    finally:
        processes.end_children()
        summary = run_folder.summarise(tasks, done, places)
        run_folder.finish(folder, summary, done, places)
        print(f"page: {os.path.relpath(folder / 'index.html')}", flush=True)
    if done and done[-1].failure:
        failure = done[-1].failure
        print(
            f"\n{done[-1].name} failed in cell {failure.cell}:\n\n{failure.source}\n\n{failure.traceback}",
            file=sys.stderr,
        )
        return 1
    for line in run_folder.headline(summary, {task.name for task in tasks}):
        print(line)
    if given.require_promotion and not summary.get("deploy", {}).get("promoted"):
        print("--require-promotion: no model became champion", file=sys.stderr)
        return 1
    return 0


def run_notebooks(tasks: list[bundle.Task], folder: Path, done: list[notebook_runner.Done]) -> None:
    """Executes the tasks in order and appends each result to done; stops after the first failure."""
    # The kernel must be this interpreter, whichever kernels the user has installed.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # kernels write TensorFlow's advice between the progress bars
    for task in tasks:
        book = notebook_runner.notebook(task.path, task.parameters, NOTEBOOKS)
        with tqdm(
            total=sum(cell.cell_type == "code" for cell in book.cells),
            desc=f"{task.name:<12}",
            unit="cell",
            bar_format="{desc} {bar:24} {n_fmt}/{total_fmt} cells, {elapsed}{postfix}",
        ) as bar:

            def on_cell(
                index: int, cell: nbformat.NotebookNode, bar: tqdm = bar, book: nbformat.NotebookNode = book
            ) -> None:
                bar.n = sum(earlier.cell_type == "code" for earlier in book.cells[:index])
                bar.set_postfix_str(_heading(book, index))

            done.append(processes.in_thread(notebook_runner.execute, task.name, book, folder, on_cell))
            bar.n = bar.total if done[-1].status == "ok" else bar.n
            bar.set_postfix_str(done[-1].status)
        if done[-1].failure:
            return


def repeat(run_id: str, cfg: config.Config) -> int:
    """Repeats a training and compares. cfg: the settings of today. Returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow's import, which takes seconds
    from lakevision.ingest import tables
    from lakevision.release import reproduce

    processes.interrupt_on_signals()
    try:
        return reproduce.main(run_id, cfg)
    except (reproduce.NotRepeatable, tables.OtherSchema, config.ConfigError) as error:
        print(f"run.py: --repeat {run_id}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the repeat's own run in MLflow is marked as failed", file=sys.stderr)
        return 130
    finally:
        processes.end_children()


def _heading(book: nbformat.NotebookNode, index: int) -> str:
    """The last heading above a cell; "" if there is none."""
    for cell in reversed(book.cells[:index]):
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            return cell.source.splitlines()[0].lstrip("# ")
    return ""


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(status)
