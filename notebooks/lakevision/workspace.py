"""Where we run: the one module that knows a laptop from Databricks. Session, parameters, display, and where files and tables live."""

import hashlib
import io
import json
import os
import shlex
import sys
import tempfile
import warnings
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import lakevision
from lakevision import config

REPOSITORY = Path(lakevision.__file__).resolve().parents[2]
ON_DATABRICKS = "DATABRICKS_RUNTIME_VERSION" in os.environ
# Said by others at every start, and nothing that a reader of a notebook can act on.
warnings.filterwarnings("ignore", "IProgress not found")
warnings.filterwarnings("ignore", "pkg_resources is deprecated")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

PARAMETERS = {"config": "local", "place": "", "set": ""}  # what a notebook takes, with the value it has when nobody says
_given = {}


def set_parameters(**values):
    """What the local runner writes into a notebook's first cell; on Databricks the job fills widgets instead. Raises KeyError."""
    unknown = set(values) - set(PARAMETERS)
    if unknown:
        raise KeyError(f"notebooks take {', '.join(PARAMETERS)}, not {', '.join(sorted(unknown))}")
    _given.update(values)


def parameter(name):
    """The value of a notebook's parameter, text. Raises KeyError for a name that is not in PARAMETERS."""
    default = PARAMETERS[name]
    if ON_DATABRICKS:
        widgets = _notebook_global("dbutils").widgets
        widgets.text(name, "dev" if name == "config" else default)
        return widgets.get(name)
    return _given.get(name, default)


def configuration():
    """The Config that this notebook's parameters name: the overlay `config`, then `place`, then `set`."""
    return config.load(parameter("config"), f"{parameter('place')} {parameter('set')}")


def given():
    """The words of this notebook's parameters that differ from the overlay, for a process of its own: ["storage.root=...", ...]."""
    return shlex.split(f"{parameter('place')} {parameter('set')}")


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
    if cfg.cache.folder:
        folders["cache"] = str(REPOSITORY / cfg.cache.folder)  # an absolute one stays as it is
    for folder in folders.values():
        os.makedirs(folder, exist_ok=True)
    schema = f"`{cfg.storage.schema}`"
    if cfg.storage.catalog:
        schema = f"`{cfg.storage.catalog}`.{schema}"
    mlflow_uri = cfg.storage.mlflow_uri or ("databricks" if ON_DATABRICKS else f"sqlite:///{root / 'mlflow.db'}")
    return Places(root=str(root), **folders, warehouse="" if cfg.storage.catalog else str(root / "warehouse"), schema=schema,
                  mlflow_uri=mlflow_uri, registry_uri=cfg.storage.registry_uri or mlflow_uri)


def spark(cfg):
    """The Spark session, with this library on its executors. On Databricks the one that runs, elsewhere a new one."""
    from pyspark.sql import SparkSession

    from lakevision import cluster

    session = SparkSession.builder.getOrCreate() if ON_DATABRICKS else cluster.session(cfg, Path(places(cfg).root) / "warehouse")
    _send_library(session)
    return session


@contextmanager
def small_batches(session):
    """Sends workers 32 records at a time, not 10,000: each is a photograph here, and the next batch finds the memory of the last in the caches."""
    key = "spark.sql.execution.arrow.maxRecordsPerBatch"
    usual = session.conf.get(key)
    session.conf.set(key, "32")
    try:
        yield
    finally:
        session.conf.set(key, usual)


def library():
    """lakevision and device as the bytes of a zip: what an executor, a trial or a Horovod rank needs to import them."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in (Path(lakevision.__file__).parent, REPOSITORY / "device"):
            for path in sorted(package.rglob("*.py")):
                # A fixed time: the same code must give the same bytes, whenever it was checked out.
                archive.writestr(zipfile.ZipInfo(str(path.relative_to(package.parent))), path.read_bytes(), zipfile.ZIP_DEFLATED)
    return out.getvalue()


def _send_library(session):
    """Open-source Spark does not ship the driver's sys.path to its workers; addPyFile works on both.

    The file is named by its content: a cluster's notebooks share one Spark context, which takes a name once and from one path only.
    """
    content = library()
    path = Path(tempfile.gettempdir()) / f"lakevision-{os.getuid()}" / f"lakevision_library_{hashlib.sha256(content).hexdigest()[:16]}.zip"
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
    """Prints what differs from the pins of requirements.txt, which mirror the runtime; says so too where nothing does."""
    from importlib.metadata import PackageNotFoundError, version

    pins = dict(line.split("#")[0].split(";")[0].strip().split("==") for line in (REPOSITORY / "requirements.txt").read_text().splitlines()
                if "==" in line and not line.startswith("#"))
    differing = []
    for name in ("pyspark", "delta-spark", "tensorflow-cpu", "keras", "petastorm", "hyperopt", "mlflow", "pyarrow", "numpy", "pillow"):
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "absent"
        if found != pins[name]:
            differing.append(f"{name} {found} (pinned: {pins[name]})")
    print("versions differ from requirements.txt: " + ", ".join(differing) if differing else f"Python {sys.version.split()[0]}, versions as pinned")


def report(where, stage, figures):
    """Keeps a stage's key figures (a dict of JSON values) where the runner and later stages find them: figures/<stage>.json."""
    path = Path(where.figures) / f"{stage}.json"
    partial = path.with_suffix(".part")
    partial.write_text(json.dumps(figures, indent=2, sort_keys=True))
    os.replace(partial, path)


def reported(where, stage):
    """The figures that report() kept. Raises FileNotFoundError naming the notebook's stage."""
    path = Path(where.figures) / f"{stage}.json"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run the notebook of stage {stage!r} first")
    return json.loads(path.read_text())


def now():
    """The time, as a page shows it."""
    from datetime import datetime, timezone

    return f"{datetime.now(timezone.utc):%d %B %Y, %H:%M} UTC"


def commit():
    """The git commit of the code, with '+changes' where the tree differs from it; 'unknown' outside a git checkout."""
    import subprocess

    def git(*arguments):
        done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    head = git("rev-parse", "HEAD")
    return f"{head}{'+changes' if git('status', '--porcelain') else ''}" if head else "unknown"
