"""Where the code runs: session, parameters, display, folders and tables, on a laptop or on Databricks.

This is the only module that tests for Databricks. Other packages call its functions, such as has_autoloader().
"""

from __future__ import annotations

import functools
import getpass
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lakevision
from device import files
from lakevision.platform import library_zip, runtime

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.platform.config import Config

REPOSITORY = Path(lakevision.__file__).resolve().parents[2]
SECRET = re.compile(r"\{\{secrets/([^/{}]+)/([^/{}]+)\}\}")
# Printed by other packages at every start, and of no use to a reader of a notebook.
warnings.filterwarnings("ignore", "IProgress not found")
warnings.filterwarnings("ignore", "pkg_resources is deprecated")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

_given: dict[str, str] = {}  # the parameters of this notebook


def on_databricks() -> bool:
    """True on Databricks, in the driver and in the workers."""
    return "DATABRICKS_RUNTIME_VERSION" in os.environ


def on_one_machine(cfg: Config) -> bool:
    """True if all processes of a run share one machine, so that a file lock keeps them apart."""
    from lakevision.platform import spark_session

    return not on_databricks() and spark_session.on_this_machine(cfg.spark.master)


def has_autoloader() -> bool:
    """True if Spark has Auto Loader (the source cloudFiles)."""
    return on_databricks()


def has_serving_endpoints() -> bool:
    """True if a model can be served by an endpoint of Databricks."""
    return on_databricks()


def free_bytes(folder: str | Path) -> int | None:
    """Free bytes of a folder's disk; None on Databricks, whose volumes report none. Raises OSError."""
    return None if on_databricks() else shutil.disk_usage(folder).free


def user(spark: SparkSession) -> str:
    """The name of the person or service principal that runs this code."""
    return spark.sql("SELECT current_user()").first()[0] if on_databricks() else getpass.getuser()


def check_versions() -> None:
    """The first call of every notebook: prints which versions differ from the pins of requirements.txt.

    Raises runtime.Unfit if the notebooks cannot run here.
    """
    current = runtime.here(on_databricks())
    runtime.demand(current)
    differing = runtime.differences((REPOSITORY / "requirements.txt").read_text(), on_databricks())
    verdict = f"; these differ from requirements.txt: {', '.join(differing)}" if differing else ", versions as pinned"
    print(current.in_words() + verdict)


@functools.cache
def parameters() -> dict[str, str]:
    """{name: default} of a notebook's parameters.

    Loaded on the first call: Spark workers import this module, but have no config/. pydantic also takes 0.1 s to load.
    """
    from lakevision.platform import config

    return config.notebook_defaults()


def set_parameters(**values: str) -> None:
    """Sets parameters of this notebook; the local runner writes this call into the first cell.

    On Databricks the job fills widgets instead. Raises KeyError for an unknown name.
    """
    unknown = set(values) - set(parameters())
    if unknown:
        raise KeyError(f"notebooks take {', '.join(parameters())}, not {', '.join(sorted(unknown))}")
    _given.update(values)


def parameter(name: str) -> str:
    """The value of a notebook's parameter. Raises KeyError for a name that is not in parameters()."""
    default = parameters()[name]
    if on_databricks():
        widgets = _notebook_global("dbutils").widgets
        widgets.text(name, default)  # makes the widget if it is missing; a value from a job or a person is kept
        _given[name] = widgets.get(name)
    return _given.get(name, default)


def configuration() -> Config:
    """The Config of this notebook's parameters: overlay `config`, then `place`, then `set`.

    Raises config.ConfigError naming the widget.
    """
    from lakevision.platform import config

    values = {name: parameter(name) for name in parameters()}
    cfg = config.load(
        values["config"],
        {
            "widget place": values["place"],
            "widget set": values["set"],
            "the widgets": [f"notebook.{name}={json.dumps(value)}" for name, value in values.items()],
        },
    )
    if on_databricks() and not cfg.storage.root.startswith("/Volumes/"):
        raise config.ConfigError(
            f"storage.root is {cfg.storage.root}, but on Databricks it must be a volume: run the notebook by the "
            "bundle's job, or fill in the widgets: config dev, place storage.catalog=<catalog> storage.schema=<schema> "
            "storage.root=/Volumes/<catalog>/<schema>/<volume>"
        )
    return cfg


def given() -> list[str]:
    """The overrides in this notebook's parameters, to hand to another process: ["storage.root=...", ...]."""
    return shlex.split(f"{parameter('place')} {parameter('set')}")


def revealed(text: str) -> str:
    """text with each {{secrets/scope/key}} replaced by the secret.

    Only this function reads secrets. Pass its result on, and never log or store it. Raises LookupError outside
    Databricks, which alone has secret scopes; Databricks' own error for a scope or key that is missing or not allowed.
    """
    reference = SECRET.search(text)
    if reference and not on_databricks():
        raise LookupError(
            f"{reference[0]} is a secret of a Databricks scope, which only Databricks can read; this is another machine"
        )
    return SECRET.sub(lambda match: _notebook_global("dbutils").secrets.get(match[1], match[2]), text)


def _notebook_global(name: str) -> Any:
    from IPython import get_ipython

    return get_ipython().user_ns[name]


@dataclass(frozen=True)
class Places:
    """Folders (absolute paths, usable by Spark and by open()) and table names of one configuration."""

    root: str
    landing: str
    checkpoints: str
    cache: str
    models: str
    edge: str
    figures: str
    warehouse: str  # "" if a catalog manages the tables' files
    schema: str
    mlflow_uri: str
    registry_uri: str

    def table(self, name: str) -> str:
        """The full name of a table, quoted."""
        return f"{self.schema}.`{name}`"


def places(cfg: Config) -> Places:
    """The Places of a Config; creates the folders."""
    root = Path(cfg.storage.root)
    root = root if root.is_absolute() else REPOSITORY / root
    folders = {name: str(root / name) for name in ("landing", "checkpoints", "cache", "models", "edge", "figures")}
    for name, elsewhere in (("landing", cfg.storage.landing), ("edge", cfg.storage.edge), ("cache", cfg.cache.folder)):
        if elsewhere:
            folders[name] = str(REPOSITORY / elsewhere)  # an absolute path is kept
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    schema = f"`{cfg.storage.schema}`"
    if cfg.storage.catalog:
        schema = f"`{cfg.storage.catalog}`.{schema}"
    mlflow_uri = cfg.storage.mlflow_uri or ("databricks" if on_databricks() else f"sqlite:///{root / 'mlflow.db'}")
    return Places(
        root=str(root),
        **folders,
        warehouse="" if cfg.storage.catalog else str(root / "warehouse"),
        schema=schema,
        mlflow_uri=mlflow_uri,
        registry_uri=cfg.storage.registry_uri or mlflow_uri,
    )


def report(places: Places, stage: str, figures: dict[str, Any]) -> None:
    """Writes a stage's key figures (JSON values) to figures/<stage>.json, for the runner and later stages."""
    files.write_atomically(Path(places.figures) / f"{stage}.json", json.dumps(figures, indent=2, sort_keys=True))


def reported(places: Places, stage: str) -> dict[str, Any]:
    """The figures that report() wrote. Raises FileNotFoundError naming the notebook's stage."""
    path = Path(places.figures) / f"{stage}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the notebook of stage {stage!r} first")
    return json.loads(path.read_text())


def spark(cfg: Config) -> SparkSession:
    """The Spark session, with this library on its executors: the running session on Databricks, else a new one."""
    from pyspark.sql import SparkSession

    from lakevision.platform import spark_session

    if on_databricks():
        session = SparkSession.builder.getOrCreate()
    else:
        session = spark_session.session(cfg, Path(places(cfg).root) / "warehouse")
    library_zip.send(session, shared=on_databricks())
    return session


@contextmanager
def small_batches(session: SparkSession, **more: str) -> Iterator[None]:
    """Sends workers 32 records at a time instead of 10,000, while the block runs.

    Each record is a photograph, so the memory of one batch is still in the CPU caches for the next. more: further Spark
    settings for the block. A stream uses the settings of its start.
    """
    settings = {"spark.sql.execution.arrow.maxRecordsPerBatch": "32", **more}
    previous = {key: session.conf.get(key) for key in settings}
    try:
        for key, value in settings.items():
            session.conf.set(key, value)
        yield
    finally:
        for key, value in previous.items():
            session.conf.set(key, value)


def library() -> bytes:
    """A zip of lakevision and device. Executors, trials and ranks import them from it."""
    return library_zip.content()


def display(thing: Any) -> None:
    """Shows a Spark or pandas table, or a figure: Databricks' display there, rich output in Jupyter."""
    if on_databricks():
        _notebook_global("display")(thing)
        return
    from IPython.display import Image
    from IPython.display import display as show

    if hasattr(thing, "savefig"):
        png = io.BytesIO()  # drawn here: a kernel shows a figure by itself only with some backends
        thing.savefig(png, format="png")
        thing = Image(png.getvalue())
    show(thing.toPandas() if hasattr(thing, "toPandas") else thing)


def now() -> str:
    """The current time as pages show it: "05 March 2026, 14:03 UTC"."""
    return f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC"


def commit() -> str:
    """The git commit of the code, with '+changes' if the tree differs from it.

    Outside a checkout: the parameter `commit`, or 'unknown'.
    """

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    return f"{head}{'+changes' if git('status', '--porcelain') else ''}" if head else _given.get("commit") or "unknown"
