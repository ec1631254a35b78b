"""One version of the registered model: found, fetched, and loaded to be asked by many threads."""

import json
import logging
import math
import os
import re
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path

from lakevision.platform import workspace
from lakevision.registry import model_registry, tracking

log = logging.getLogger("lakevision.serving.rest.main")
QUICK = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
}  # MLflow's own wait for minutes on a registry that is down


class NotServable(RuntimeError):
    """There is no such version, or the registry can't be reached; the message says which and what to do."""


class BadInput(ValueError):
    """A request's table holds no images; the message says what was expected and quotes nothing of it."""


@dataclass(frozen=True)
class Version:
    """A version of the registered model. alias: the one it was found by, "" where it was asked for by number; folder: its files, on this machine."""

    name: str
    number: str
    alias: str
    folder: str


@dataclass(frozen=True)
class Loaded:
    """rows: function from a list of image bytes or base64 texts to what pyfunc_model.PhotoModel.rows says; app: MLflow's scoring server around
    it; info: dict of GET /version."""

    number: str
    rows: object
    app: object
    info: dict


def find(cfg, scratch, alias="champion", number=""):
    """Asks the registry for a version, by number or else alias, and fetches its files into a folder below scratch. Returns Version.

    Raises NotServable.
    """
    from mlflow import MlflowClient, artifacts

    for name, value in QUICK.items():
        os.environ.setdefault(name, value)
    places, name = workspace.places(cfg), model_registry.name(cfg)
    try:
        tracking.start(cfg, places)
        if not number:
            found = model_registry.version_of(cfg, alias)
            if found is None:
                raise NotServable(
                    f"no version of model {name} is {alias}: run 04_deploy first, or say which, --version N or --alias challenger"
                )
            number = str(found.version)
        MlflowClient().get_model_version(name, number)
        folder = tempfile.mkdtemp(dir=scratch)
        try:
            return Version(
                name, number, alias, artifacts.download_artifacts(f"models:/{name}/{number}", dst_path=folder)
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # half a model, and the next try makes a folder of its own
            raise
    except NotServable:
        raise
    except Exception as error:  # MLflow raises its own, requests', SQLAlchemy's and the store's errors
        raise NotServable(
            f"model {name}, {f'version {number}' if number else alias}, can't be had from {places.registry_uri}: "
            f"{first_line(error)}"
        ) from error


def first_line(error):
    """An exception's kind and the first line of its message: those of SQLAlchemy and TensorFlow go on for pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])[:300]


def load(version, max_rows):
    """Loads a Version and warms it up. max_rows: of a table. Returns Loaded."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    logging.getLogger("mlflow").setLevel(
        logging.ERROR
    )  # it warns of versions that differ from the pins in a way that scares and does not help
    model = mlflow.pyfunc.load_model(version.folder)
    asked = model.unwrap_python_model()
    if not hasattr(asked, "rows"):
        raise NotServable(
            f"version {version.number} was registered by an earlier lakevision: run 03_train and 04_deploy again"
        )
    rows = asked.rows
    rows([grey()])  # the first call of a TensorFlow function builds what the others use
    card = json.loads(Path(version.folder, "artifacts", "card.json").read_text())
    info = {
        "name": version.name,
        "version": version.number,
        "alias": version.alias,
        "run_id": model.metadata.run_id,
        **{key: card[key] for key in ("transform", "classes", "threshold")},
        "mlflow": mlflow.__version__,
    }
    return Loaded(version.number, rows, scoring_server.init(_Table(rows, max_rows)), info)


def grey():
    """A small grey picture, JPEG: what a model is tried with."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(out, "JPEG")
    return out.getvalue()


class _Table:
    """What MLflow's scoring server asks of a model. It has no schema, on purpose: MLflow then hands the base64 texts over as they came, each is
    decoded with its image, and one that is none costs its own row instead of the request."""

    def __init__(self, rows, max_rows):
        self.rows, self.max_rows, self.metadata = rows, max_rows, self

    def get_input_schema(self):
        return None

    def get_params_schema(self):
        return None

    def predict(self, data):
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE

        try:
            asked = images(data)
            if len(asked) > self.max_rows:
                raise BadInput(too_many(self.max_rows))
            return answers(self.rows(asked))
        except BadInput as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        except Exception as error:
            log_failure(error)
            raise MlflowException(type(error).__name__, INTERNAL_ERROR) from None


def too_many(max_rows):
    return f"more than serve.max_rows, {max_rows}, rows: send them in several requests"


def images(data):
    """The images, bytes or base64 texts, in what MLflow has parsed: a table or dict with `image`, or a plain list. Raises BadInput."""
    import numpy as np
    import pandas as pd

    if isinstance(data, (pd.DataFrame, dict)):
        if list(data) != ["image"]:
            raise BadInput(
                f"expected one column, image, got {len(list(data))} of them{' with other names' if 'image' not in data else ''}"
            )
        data = data["image"]
    if isinstance(data, (str, bytes)):
        raise BadInput("expected a list of images in base64, got one text")
    if not isinstance(data, (list, np.ndarray, pd.Series)) or not isinstance(data, list) and np.ndim(data) == 0:
        raise BadInput(f"expected a list of images in base64, got {type(data).__name__}")
    return [str(item) if isinstance(item, np.str_) else item for item in data]


def answers(rows):
    """Rows of PhotoModel.rows as dicts that JSON can hold: no NaN, and no bytes of an image in an error."""
    made = []
    for label, probability, scores, error in rows:
        if error is None and not all(map(math.isfinite, scores)):
            label, probability, scores, error = None, None, None, "the model gave no number for this image"
        made.append({"label": label, "probability": probability, "scores": scores, "error": error and discreet(error)})
    return made


def limit_pixels(megapixels):
    """Makes this process refuse larger images before it decodes them. By Pillow's own limit, which holds for versions of any age: each brings the
    code of its transform along, whose limit is that of training and devices."""
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = megapixels * 1_000_000 // 2  # Pillow warns above, and refuses above twice as many
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


TOO_LARGE = re.compile(r"too large: Image size \((\d+) pixels\) exceeds limit of (\d+) pixels.*", re.DOTALL)


def discreet(error):
    """An error's words without the bytes that transform.BadImage quotes: in a log of ingest they help, a stranger's request is not repeated.
    Pillow's words about a limit get the setting's name."""
    if found := TOO_LARGE.fullmatch(error):
        return f"too large: {int(found[1]) / 1e6:.1f} megapixels; serve.max_megapixels is {int(found[2]) / 1e6:g}"
    return re.sub(r"(: starts with | \()b(['\"]).*\2\)?", "", error, flags=re.DOTALL)


def log_failure(error):
    """Logs what failed and where, never the message: those of pandas, NumPy and MLflow repeat the data."""
    place, trace = "", error.__traceback__
    while trace:
        place, trace = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}", trace.tb_next
    log.error("a request failed: %s at %s", type(error).__name__, place)
