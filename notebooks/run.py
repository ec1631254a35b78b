"""Runs the bundle's jobs on this machine: the notebooks of databricks.yml, in its order, with its parameters.

    bash notebooks/run.sh                                       # the job tour: all of it, on simulated photographs
    bash notebooks/run.sh --images FOLDER                       # on your own
    bash notebooks/run.sh --from 03_train --set training.epochs=3
    bash notebooks/run.sh --only 02_ingest
    bash notebooks/run.sh --target dev --job retrain            # a scheduled job as Databricks runs it, on what has landed here; also score
    bash notebooks/run.sh --repeat RUN_ID                       # train that MLflow run again from its record, and compare
    bash notebooks/run.sh --serve                               # the champion as a REST service, until Ctrl-C
    bash notebooks/run.sh --promote why                         # why this version serves; also list, promote, rollback

Executed notebooks, their HTML, index.html and summary.json are kept under .local/runs/<time>/, and .local/runs/latest.
Exit status: 0; 1 where a cell fails (or, with --require-promotion, where nothing was promoted; with --repeat, where it can't be repeated or does
not agree); 2 for a wrong command line; 130 after Ctrl-C.
"""

import argparse
import hashlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from pathlib import Path

LIBRARY = Path(__file__).resolve().parent
sys.path.insert(0, str(LIBRARY))

import psutil  # noqa: E402
from tqdm import tqdm  # noqa: E402

from lakevision.job import bundle, notebook_runner, page
from lakevision.platform import config, workspace  # noqa: E402

LOCAL = workspace.REPOSITORY / ".local"
PLACED = (
    "storage.landing",
    "storage.edge",
    "storage.catalog",
    "storage.schema",
    "storage.mlflow_uri",
    "storage.registry_uri",
    "storage.experiment",
    "deploy.model",
)


class NotInside(ValueError):
    """--fresh was asked to remove something outside .local."""


def arguments(words=None):
    parser = argparse.ArgumentParser(
        prog="bash notebooks/run.sh", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--images",
        metavar="FOLDER",
        help="your photographs: class folders, or files named <...>_<label>.jpg; also s3://, az://, gs://",
    )
    parser.add_argument(
        "--from", dest="first", metavar="NOTEBOOK", help="begin here; what earlier notebooks made is used as it is"
    )
    parser.add_argument("--only", metavar="NOTEBOOK", help="run this one alone")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="a setting that differs; can be repeated",
    )
    parser.add_argument(
        "--target",
        default="local",
        help="the overlay in config/: local (the default), or dev or prod: a target of the "
        "bundle, whose files, tables, runs and models then lie here",
    )
    parser.add_argument("--job", default="tour", help="the job of databricks.yml: tour (the default), retrain or score")
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="forget what earlier runs on these photographs made; touches nothing outside .local",
    )
    parser.add_argument("--require-promotion", action="store_true", help="exit with 1 where no model became champion")
    parser.add_argument(
        "--repeat",
        metavar="RUN_ID",
        help="train again from what MLflow holds of a run of 03_train, compare, and register nothing; "
        "--images, --target and --set storage.* say which lakehouse it is in",
    )
    parser.add_argument(
        "--serve",
        nargs="?",
        const="champion",
        metavar="VERSION",
        help="serve a model version, by its number or alias (default: champion), "
        "as --set serve.* say; see lakevision/serving/rest/main.py",
    )
    parser.add_argument(
        "--promote",
        metavar="WORDS",
        help="'why', 'list', 'settle', \"promote 3 --because '...'\" or \"rollback --because '...'\"; see "
        "lakevision/release/cli.py",
    )
    given = parser.parse_args(words)
    if given.promote and (
        given.serve or given.repeat or given.first or given.only or given.fresh or given.require_promotion
    ):
        parser.error("--promote goes with --images, --target and --set only")
    if given.serve and (given.repeat or given.first or given.only or given.fresh or given.require_promotion):
        parser.error("--serve goes with --images, --target and --set only")
    if given.repeat and (given.first or given.only or given.fresh or given.require_promotion):
        parser.error("--repeat goes with --images, --target and --set only")
    if given.repeat and any(not setting.startswith(("storage.", "spark.")) for setting in given.set):
        parser.error("--repeat takes all settings from the record: only storage.* and spark.* can be --set")
    return given


def main(words=None):
    given = arguments(words)
    try:
        tasks, places, cfg = plan(given)
        if given.fresh:
            forget(Path(places.root))
            places = workspace.places(cfg)
    except (bundle.BundleError, config.ConfigError, notebook_runner.SourceError, FileNotFoundError, NotInside) as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    if given.repeat:
        return repeated(given.repeat, cfg)
    if given.promote:
        from lakevision.release import cli as promotion_cli

        return promotion_cli.main(shlex.split(given.promote), cfg)
    if given.serve:
        from lakevision.serving.rest import main as rest_main

        return rest_main.serve(cfg, given.serve, given.serve if given.serve.isdigit() else "")
    folder = LOCAL / "runs" / datetime.now().strftime("%Y-%m-%dT%H%M%S.%f")[:-3]
    folder.mkdir(parents=True)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    done = []
    try:
        run(tasks, folder, done)
    except KeyboardInterrupt:
        print("\nstopped; the work of finished notebooks is kept", file=sys.stderr)
        return 130
    finally:
        end_children()
        summary = summarise(tasks, done, places)
        finish(folder, summary, done, places)
    print(f"page: {os.path.relpath(folder / 'index.html')}")
    if done and done[-1].failure:
        failure = done[-1].failure
        print(
            f"\n{done[-1].name} failed in cell {failure.cell}:\n\n{failure.source}\n\n{failure.traceback}",
            file=sys.stderr,
        )
        return 1
    headline(summary, {task.name for task in tasks})
    if given.require_promotion and not summary.get("deploy", {}).get("promoted"):
        print("--require-promotion: no model became champion", file=sys.stderr)
        return 1
    return 0


def repeated(run_id, cfg):
    """Repeats a training. Returns the exit status."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # before TensorFlow's import, which takes seconds
    from lakevision.ingest import tables
    from lakevision.release import reproduce

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return reproduce.main(run_id, cfg)
    except (reproduce.NotRepeatable, tables.OtherSchema, config.ConfigError) as error:
        print(f"run.py: --repeat {run_id}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nstopped; the repeat's own run in MLflow is marked as failed", file=sys.stderr)
        return 130
    finally:
        end_children()


def plan(given):
    """(the tasks to run, with the parameters they get here; Places; Config). Raises for anything on the command line that can't be."""
    overrides = list(given.set)
    root = LOCAL / "lakehouse"
    if given.images:
        images = given.images if "://" in given.images else str(Path(given.images).expanduser().resolve())
        if "://" not in images and not Path(images).is_dir():
            raise FileNotFoundError(f"--images {given.images}: no such folder")
        # Each set of photographs has a lakehouse of its own: one trained on a mixture of two is of no use.
        root = LOCAL / f"lakehouse-{Path(images).name or 'images'}-{hashlib.sha256(images.encode()).hexdigest()[:6]}"
        overrides += ["capture.source=folder", f"capture.path={json.dumps(images)}"]
    content = bundle.read()
    words = [f"storage.root={json.dumps(str(root))}"]
    if given.target in content["targets"]:  # what lies in a workspace there lies here where local has it
        words += [
            f"{name}={json.dumps(value)}" for name, value in config.load("local").flat().items() if name in PLACED
        ]
    cfg = config.load(given.target, words + overrides)
    here = {"config": given.target, "place": shlex.join(words), "commit": ""}  # "": git knows the commit
    target = given.target if given.target in content["targets"] else bundle.default_target(content)
    resolved = bundle.resolve(content, target, {**bundle.stand_ins(content), "set": shlex.join(overrides)})
    tasks = [
        bundle.Task(task.name, task.path, {**task.parameters, **here}, task.after)
        for task in bundle.tasks(resolved, given.job)
    ]
    names = [task.name for task in tasks]
    if given.images and "01_capture" not in names:
        raise bundle.BundleError(
            f"--images lands photographs by 01_capture, which job {given.job} does not run: run --job tour first"
        )
    for option, name in (("--from", given.first), ("--only", given.only)):
        if name and name not in names:
            raise bundle.BundleError(f"{option} {name}: job {given.job} has {', '.join(names)}")
    if given.first:
        tasks = tasks[names.index(given.first) :]
    if given.only:
        tasks = [task for task in tasks if task.name == given.only]
    return tasks, workspace.places(cfg), cfg


def run(tasks, folder, done):
    """Executes the tasks one after the other, appending each notebook_runner.Done; stops behind the first that fails."""
    # The kernel must be this interpreter, whatever kernels the user has installed.
    os.environ["JUPYTER_PREFER_ENV_PATH"] = "1"
    os.environ.setdefault("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    for task in tasks:
        book = notebook_runner.notebook(task.path, task.parameters, LIBRARY)
        code = [index for index, cell in enumerate(book.cells) if cell.cell_type == "code"]
        with tqdm(
            total=len(code),
            desc=f"{task.name:<12}",
            unit="cell",
            bar_format="{desc} {bar:24} {n_fmt}/{total_fmt} cells, {elapsed}{postfix}",
        ) as bar:

            def on_cell(index, cell, bar=bar, book=book):
                bar.n = sum(1 for other in book.cells[:index] if other.cell_type == "code")
                bar.set_postfix_str(_heading(book, index))

            done.append(in_thread(notebook_runner.execute, task.name, book, folder, on_cell))
            bar.n = bar.total if done[-1].status == "ok" else bar.n
            bar.set_postfix_str(done[-1].status)
        if done[-1].failure:
            return


def in_thread(function, *arguments):
    """The function's result, from a thread of its own: in the main thread nbclient would take Ctrl-C for itself and go on."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(function, *arguments)
        try:
            return future.result()
        except KeyboardInterrupt:
            end_children()  # the kernel's death ends the thread
            raise


def _heading(book, index):
    for cell in reversed(book.cells[:index]):
        if cell.cell_type == "markdown" and cell.source.startswith("#"):
            return cell.source.splitlines()[0].lstrip("# ")
    return ""


def summarise(tasks, done, places):
    """The dict of summary.json: how each notebook went, and the key figures that stages have reported, now or in an earlier run."""
    finished = {notebook.name: notebook for notebook in done}
    summary = {
        "notebooks": [
            {"name": task.name, "seconds": round(finished[task.name].seconds, 2), "status": finished[task.name].status}
            if task.name in finished
            else {"name": task.name, "seconds": 0.0, "status": "not run"}
            for task in tasks
        ]
    }
    for stage in ("capture", "ingest", "train", "deploy", "score"):
        try:
            summary[stage] = workspace.reported(places, stage)
        except FileNotFoundError:
            continue  # that stage has never run
    return summary


def finish(folder, summary, done, places):
    """Writes summary.json and index.html, with the evaluation's report beside them, and points .local/runs/latest at them."""
    report = Path(places.figures) / "report.html"
    if report.exists():
        shutil.copy(report, folder / "report.html")
    (folder / "summary.json").write_text(json.dumps(summary, indent=2))
    (folder / "index.html").write_text(
        page.render(summary, done, f"Run of {datetime.now():%d %B %Y, %H:%M}"), encoding="utf-8"
    )
    link = folder.parent / ".latest"
    link.unlink(missing_ok=True)
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")


def headline(summary, names):
    """Prints what came out, in a line or two. names: of the notebooks that ran."""
    if "05_score" in names and "04_deploy" not in names:
        figures = summary["score"]
        print(
            f"version {figures['version']} scored {figures['images']} photographs, {figures['errors']} with an error"
            if figures["version"]
            else "no version serves: nothing was scored"
        )
        return
    for stage in ("train", "deploy"):
        if stage in summary:
            figures = summary[stage]
            print(
                {
                    "train": lambda: (
                        f"{figures['verdict']}: accuracy {figures['accuracy']:.3f}, metadata alone {figures['metadata_baseline']:.3f}"
                    ),
                    "deploy": lambda: (
                        f"{figures['model']} version {figures['version']} is {figures['alias']}: {figures['reason']}"
                    ),
                }[stage]()
            )


def forget(root):
    """Removes a lakehouse. Raises NotInside for a folder outside .local."""
    if LOCAL not in root.resolve().parents:
        raise NotInside(f"--fresh removes folders below .local only, not {root}")
    shutil.rmtree(root, ignore_errors=True)


def _interrupt(number, frame):
    raise KeyboardInterrupt


def end_children():
    """Ends every process below this one: kernels, their JVM, Python workers, Horovod ranks."""
    children = psutil.Process().children(recursive=True)
    for child in children:
        _signal(child, "terminate")
    _, alive = psutil.wait_procs(children, timeout=3)
    for child in alive:
        _signal(child, "kill")


def _signal(process, how):
    try:
        getattr(process, how)()
    except psutil.NoSuchProcess:
        return  # it ended meanwhile


if __name__ == "__main__":
    began = time.monotonic()
    status = main()
    print(f"{time.monotonic() - began:.0f} s")
    sys.exit(status)
