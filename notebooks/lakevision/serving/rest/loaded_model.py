"""Finds, downloads and loads one version of the registered model, for use by many threads."""

from __future__ import annotations

import json
import logging
import math
import os
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from lakevision.platform import config, workspace
from lakevision.registry import model_registry, tracking

log = logging.getLogger("lakevision.serving.rest.main")
# By default MLflow waits minutes for a registry that is down.
QUICK = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}


class NotServable(RuntimeError):
    """The version does not exist, or the registry is unreachable. The message gives the cause and the remedy."""


class BadInput(ValueError):
    """A request's table holds no images. The message names the expected format and quotes no data."""


@dataclass(frozen=True)
class Version:
    """A version of the registered model. alias: "" if found by number; folder: the version's files on this machine."""

    name: str
    number: str
    alias: str
    folder: str


@dataclass(frozen=True)
class Loaded:
    """A loaded version.

    rows: function from a list of images (bytes or base64 text) to the rows of pyfunc_model.PhotoModel.rows;
    app: MLflow's scoring server around rows; info: response of GET /version.
    """

    number: str
    rows: Callable[[list], list]
    app: Callable
    info: dict


def find(cfg: config.Config, scratch: str, alias: str = "champion", number: str = "") -> Version:
    """Finds a version by number, or else by alias, and downloads the files into a new folder below scratch.

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
                    f"no version of model {name} is {alias}: "
                    "run 04_deploy first, or choose another with --version N or --alias challenger"
                )
            number = str(found.version)
        MlflowClient().get_model_version(name, number)
        folder = tempfile.mkdtemp(dir=scratch)
        try:
            return Version(
                name, number, alias, artifacts.download_artifacts(f"models:/{name}/{number}", dst_path=folder)
            )
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)  # an incomplete model; the next try uses a new folder
            raise
    except NotServable:
        raise
    except Exception as error:  # MLflow raises its own errors and those of requests, SQLAlchemy and the store
        raise NotServable(
            f"model {name}, {f'version {number}' if number else alias}, can't be had from {places.registry_uri}: "
            f"{first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """Returns an exception's type and the first line of its message. SQLAlchemy and TensorFlow write pages."""
    return ": ".join([type(error).__name__, *str(error).splitlines()[:1]])[:300]


def load(version: Version, max_rows: int) -> Loaded:
    """Loads a version and warms it up. max_rows: largest table in one request. Raises NotServable."""
    import mlflow
    from mlflow.pyfunc import scoring_server

    # Hide alarming and unhelpful warnings about versions that differ from the pins.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    model = mlflow.pyfunc.load_model(version.folder)
    photo_model = model.unwrap_python_model()
    if not hasattr(photo_model, "rows"):
        raise NotServable(
            f"version {version.number} was registered by an earlier lakevision: run 03_train and 04_deploy again"
        )
    rows = photo_model.rows
    rows([grey()])  # the first call of a TensorFlow function builds its graph
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


def grey() -> bytes:
    """Returns a grey JPEG of 64 x 64 pixels, to try a model."""
    import io

    from PIL import Image

    out = io.BytesIO()
    Image.new("RGB", (64, 64), "grey").save(out, "JPEG")
    return out.getvalue()


class _Table:
    """The model as MLflow's scoring server uses it.

    There is deliberately no schema, so MLflow passes base64 texts on unchanged. Each text is decoded with its image,
    and an invalid text fails its own row instead of the request.
    """

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
            batch = images(data)
            if len(batch) > self.max_rows:
                raise BadInput(too_many(self.max_rows))
            return answers(self.rows(batch))
        except BadInput as error:
            raise MlflowException(str(error), INVALID_PARAMETER_VALUE) from None
        except Exception as error:
            log_failure(error)
            raise MlflowException(type(error).__name__, INTERNAL_ERROR) from None


def too_many(max_rows: int) -> str:
    """Returns the error message for a table with too many rows."""
    return f"more than serve.max_rows, {max_rows}, rows: send them in several requests"


def images(data: object) -> list:
    """Returns the images (bytes or base64 text) of a table or dict with `image`, or of a list. Raises BadInput."""
    import numpy as np
    import pandas as pd

    if isinstance(data, (pd.DataFrame, dict)):
        if list(data) != ["image"]:
            names = " with other names" if "image" not in data else ""
            raise BadInput(f"expected one column, image, got {len(list(data))} of them{names}")
        data = data["image"]
    if isinstance(data, (str, bytes)):
        raise BadInput("expected a list of images in base64, got one text")
    if not isinstance(data, (list, np.ndarray, pd.Series)) or not isinstance(data, list) and np.ndim(data) == 0:
        raise BadInput(f"expected a list of images in base64, got {type(data).__name__}")
    return [str(item) if isinstance(item, np.str_) else item for item in data]


def answers(rows: Iterable[tuple]) -> list[dict]:
    """Converts rows of PhotoModel.rows to dicts for JSON, without NaN and without image bytes in errors."""
    made = []
    for label, probability, scores, error in rows:
        if error is None and not all(map(math.isfinite, scores)):
            label, probability, scores, error = None, None, None, "the model gave no number for this image"
        made.append({"label": label, "probability": probability, "scores": scores, "error": error and discreet(error)})
    return made


def limit_pixels(megapixels: int) -> None:
    """Makes this process refuse larger images before decoding.

    Pillow's own limit works for versions of any age. The limit in a version's transform applies to training and
    devices.
    """
    from PIL import Image

    Image.MAX_IMAGE_PIXELS = megapixels * 1_000_000 // 2  # Pillow warns above, and refuses above twice as many
    warnings.simplefilter("ignore", Image.DecompressionBombWarning)


TOO_LARGE = re.compile(r"too large: Image size \((\d+) pixels\) exceeds limit of (\d+) pixels.*", re.DOTALL)


def discreet(error: str) -> str:
    """Removes the bytes that transform.BadImage quotes, so no response repeats a request. In ingest's log they help.

    Pillow's message about its limit is replaced by one that names the setting.
    """
    if found := TOO_LARGE.fullmatch(error):
        return f"too large: {int(found[1]) / 1e6:.1f} megapixels; serve.max_megapixels is {int(found[2]) / 1e6:g}"
    return re.sub(r"(: starts with | \()b(['\"]).*\2\)?", "", error, flags=re.DOTALL)


def log_failure(error: BaseException) -> None:
    """Logs an exception's type and place, never its message: pandas, NumPy and MLflow quote the data."""
    place, trace = "", error.__traceback__
    while trace:
        place, trace = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}", trace.tb_next
    log.error("a request failed: %s at %s", type(error).__name__, place)
