"""Where we run: the one module that knows a laptop from Databricks. Session, parameters, display, and where files and tables live."""

import functools
import hashlib
import io
import json
import os
import re
import shlex
import tempfile
import warnings
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

import lakevision
from lakevision.platform import config, runtime

REPOSITORY = Path(lakevision.__file__).resolve().parents[2]
ON_DATABRICKS = "DATABRICKS_RUNTIME_VERSION" in os.environ
# Said by others at every start, and nothing that a reader of a notebook can act on.
warnings.filterwarnings("ignore", "IProgress not found")
warnings.filterwarnings("ignore", "pkg_resources is deprecated")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

_given = {}


@functools.cache
def parameters():
    """{name: value where nobody says one} of what a notebook takes. Read when asked: a worker has this module, and no config."""
    return config.notebook_defaults()


def set_parameters(**values):
    """What the local runner writes into a notebook's first cell; on Databricks the job fills widgets instead. Raises KeyError."""
    unknown = set(values) - set(parameters())
    if unknown:
        raise KeyError(f"notebooks take {', '.join(parameters())}, not {', '.join(sorted(unknown))}")
    _given.update(values)


def parameter(name):
    """The value of a notebook's parameter, text. Raises KeyError for a name that is not in parameters()."""
    default = parameters()[name]
    if ON_DATABRICKS:
        widgets = _notebook_global("dbutils").widgets
        widgets.text(name, default)  # makes the widget where nobody has; a value that a job or a person gave stays
        _given[name] = widgets.get(name)
    return _given.get(name, default)


def configuration():
    """The Config that this notebook's parameters name: overlay `config`, then `place`, then `set`. Raises config.ConfigError naming the widget."""
    taken = {name: parameter(name) for name in parameters()}
    cfg = config.load(
        taken["config"],
        {
            "widget place": taken["place"],
            "widget set": taken["set"],
            "the widgets": [f"notebook.{name}={json.dumps(value)}" for name, value in taken.items()],
        },
    )
    if ON_DATABRICKS and not cfg.storage.root.startswith("/Volumes/"):
        raise config.ConfigError(
            f"storage.root is {cfg.storage.root}, and on Databricks it must be a volume: run the notebook by the bundle's "
            "job, or fill in the widgets: config dev, place storage.catalog=<catalog> storage.schema=<schema> "
            "storage.root=/Volumes/<catalog>/<schema>/<volume>"
        )
    return cfg


def given():
    """The words of this notebook's parameters that differ from the overlay, for a process of its own: ["storage.root=...", ...]."""
    return shlex.split(f"{parameter('place')} {parameter('set')}")


SECRET = re.compile(r"\{\{secrets/([^/{}]+)/([^/{}]+)\}\}")


def revealed(text):
    """text with each {{secrets/scope/key}} replaced by the secret. The one place that ever holds one: hand the result on, and never log or keep it.

    Raises LookupError off Databricks, which alone has secret scopes; Databricks' own error where the scope or key is not there or not allowed."""
    if not ON_DATABRICKS and SECRET.search(text):
        raise LookupError(f"{SECRET.search(text)[0]} is a secret of a Databricks scope, and this is another machine")
    return SECRET.sub(lambda found: _notebook_global("dbutils").secrets.get(found[1], found[2]), text)


def _notebook_global(name):
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
    warehouse: str  # "" where a catalog manages the tables' files
    schema: str
    mlflow_uri: str
    registry_uri: str

    def table(self, name):
        """The full name of a table, quoted."""
        return f"{self.schema}.`{name}`"


def places(cfg):
    """The Places of a Config; makes the folders."""
    root = Path(cfg.storage.root)
    root = root if root.is_absolute() else REPOSITORY / root
    folders = {name: str(root / name) for name in ("landing", "checkpoints", "cache", "models", "edge", "figures")}
    for name, elsewhere in (("landing", cfg.storage.landing), ("edge", cfg.storage.edge), ("cache", cfg.cache.folder)):
        if elsewhere:
            folders[name] = str(REPOSITORY / elsewhere)  # an absolute one stays as it is
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    schema = f"`{cfg.storage.schema}`"
    if cfg.storage.catalog:
        schema = f"`{cfg.storage.catalog}`.{schema}"
    mlflow_uri = cfg.storage.mlflow_uri or ("databricks" if ON_DATABRICKS else f"sqlite:///{root / 'mlflow.db'}")
    return Places(
        root=str(root),
        **folders,
        warehouse="" if cfg.storage.catalog else str(root / "warehouse"),
        schema=schema,
        mlflow_uri=mlflow_uri,
        registry_uri=cfg.storage.registry_uri or mlflow_uri,
    )


def spark(cfg):
    """The Spark session, with this library on its executors. On Databricks the one that runs, elsewhere a new one."""
    from pyspark.sql import SparkSession

    from lakevision.platform import spark_session

    session = (
        SparkSession.builder.getOrCreate()
        if ON_DATABRICKS
        else spark_session.session(cfg, Path(places(cfg).root) / "warehouse")
    )
    _send_library(session)
    return session


@contextmanager
def small_batches(session, **more):
    """Sends workers 32 records at a time, not 10,000: each is a photograph here, and the next batch finds the memory of the last in the caches.

    more: further settings of Spark for as long as the block runs, {name: text}. A stream takes those that hold when it starts.
    """
    settings = {"spark.sql.execution.arrow.maxRecordsPerBatch": "32", **more}
    usual = {key: session.conf.get(key) for key in settings}
    try:
        for key, value in settings.items():
            session.conf.set(key, value)
        yield
    finally:
        for key, value in usual.items():
            session.conf.set(key, value)


def library():
    """lakevision and device as the bytes of a zip: what an executor, a trial or a Horovod rank needs to import them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in (Path(lakevision.__file__).parent, REPOSITORY / "device"):
            for path in sorted(package.rglob("*.py")):
                # A fixed time: the same code must give the same bytes, whenever it was checked out.
                archive.writestr(
                    zipfile.ZipInfo(str(path.relative_to(package.parent))), path.read_bytes(), zipfile.ZIP_DEFLATED
                )
    return out.getvalue()


def _send_library(session):
    """Open-source Spark does not ship the driver's sys.path to its workers; addPyFile works on both.

    The file is named by its content: a cluster's notebooks share one Spark context, which takes a name once and from one path only.
    """
    content = library()
    path = (
        Path(tempfile.gettempdir())
        / f"lakevision-{os.getuid()}"
        / f"lakevision_library_{hashlib.sha256(content).hexdigest()[:16]}.zip"
    )
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(f".{os.getpid()}.part")
    partial.write_bytes(content)
    os.replace(partial, path)
    session.sparkContext.addPyFile(str(path))


def display(thing):
    """Shows a Spark or pandas table, or a figure, the way the place does: Databricks' own display, or rich output in Jupyter."""
    if ON_DATABRICKS:
        return _notebook_global("display")(thing)
    from IPython.display import Image
    from IPython.display import display as show

    if hasattr(thing, "savefig"):
        png = io.BytesIO()  # drawn here: whether a kernel shows a figure by itself depends on its backend
        thing.savefig(png, format="png")
        thing = Image(png.getvalue())
    show(thing.toPandas() if hasattr(thing, "toPandas") else thing)


def check_versions():
    """Every notebook's first act: raises runtime.Unfit where it can't work; else prints what differs from the pins of requirements.txt."""
    found = runtime.here(ON_DATABRICKS)
    runtime.demand(found)
    differing = runtime.differences((REPOSITORY / "requirements.txt").read_text(), ON_DATABRICKS)
    print(
        found.in_words()
        + (", versions as pinned" if not differing else "; these differ from requirements.txt: " + ", ".join(differing))
    )


def report(places, stage, figures):
    """Keeps a stage's key figures (a dict of JSON values) where the runner and later stages find them: figures/<stage>.json."""
    path = Path(places.figures) / f"{stage}.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(figures, indent=2, sort_keys=True))
    os.replace(partial, path)


def reported(places, stage):
    """The figures that report() kept. Raises FileNotFoundError naming the notebook's stage."""
    path = Path(places.figures) / f"{stage}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the notebook of stage {stage!r} first")
    return json.loads(path.read_text())


def now():
    """The time, as a page shows it."""
    from datetime import datetime

    return f"{datetime.now(UTC):%d %B %Y, %H:%M} UTC"


def commit():
    """The git commit of the code, with '+changes' where the tree differs from it; outside a checkout the parameter `commit`, or 'unknown'."""
    import subprocess

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    return f"{head}{'+changes' if git('status', '--porcelain') else ''}" if head else _given.get("commit") or "unknown"
