"""The model in MLflow's registry.

03_train logs the model, 04_deploy registers it and sets its alias, everything else loads it by its alias.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakevision.platform import workspace

if TYPE_CHECKING:
    import keras
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.pyfunc import PyFuncModel

    from lakevision.platform.config import Config

REQUIREMENTS = ("numpy", "pandas", "pillow", "mlflow")  # and TensorFlow, see tensorflow()


def card(cfg: Config, cache: Any, **lineage: Any) -> dict[str, Any]:
    """The model card: classes, transform, threshold and origin, which every user of the model needs.

    cache: the cache.Cache that the model was trained on; lineage: more entries, JSON values.
    """
    return {
        "classes": list(cache.classes),
        "transform": cache.transform,
        "threshold": cfg.training.threshold,
        "delta_version": cache.delta_version,
        "commit": workspace.commit(),
        **lineage,
    }


def log(network: keras.Model, model_card: dict[str, Any], example: bytes) -> str:
    """Logs a Keras model with its card into the active run, as a pyfunc model. Returns the model's URI.

    model_card: as of card(); example: an image file.
    """
    from importlib.metadata import version

    import mlflow
    import pandas as pd

    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved_model")
        with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the addresses of all its tensors
            network.export(str(saved))
        Path(folder, "card.json").write_text(json.dumps(model_card, indent=2))
        # MLflow would take 13 s to infer the requirements, and would pin whatever happens to be imported.
        pins = [f"{name}=={version(name)}" for name in (tensorflow(), *REQUIREMENTS)]
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            signature=_signature(),
            pip_requirements=pins,
            artifacts={"saved_model": str(saved), "card": str(Path(folder, "card.json"))},
            code_paths=[str(workspace.REPOSITORY / "device")],
            input_example=pd.DataFrame({"image": [example]}),
        )
    return logged.model_uri


def _signature() -> Any:
    """The model's signature: MLflow's ModelSignature."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    return ModelSignature(
        Schema([ColSpec(DataType.binary, "image", required=False), ColSpec(DataType.string, "path", required=False)]),
        Schema(
            [
                ColSpec(DataType.string, "label", required=False),
                ColSpec(DataType.double, "probability", required=False),
                ColSpec(Array(DataType.double), "scores", required=False),
                ColSpec(DataType.string, "error", required=False),
            ]
        ),
    )


def tensorflow() -> str:
    """The installed distribution of TensorFlow: tensorflow-cpu of requirements.txt, or tensorflow on GPU runtimes."""
    from importlib.metadata import packages_distributions

    installed = packages_distributions().get("tensorflow", [])
    return next(name for name in ("tensorflow-cpu", "tensorflow", *installed) if name in installed)


def name(cfg: Config) -> str:
    """The registered model's full name: catalog.schema.model in Unity Catalog, else the model's name alone."""
    return ".".join(filter(None, (cfg.storage.catalog, cfg.storage.catalog and cfg.storage.schema, cfg.deploy.model)))


def register(cfg: Config, model_uri: str, tags: dict[str, Any]) -> str:
    """Registers a logged model as a new version. Returns the version's number as text."""
    import mlflow

    mlflow_version = mlflow.register_model(model_uri, name(cfg), tags={key: str(value) for key, value in tags.items()})
    return str(mlflow_version.version)


def set_alias(cfg: Config, alias: str, version: str) -> None:
    """Points an alias (champion, challenger) at a version."""
    from mlflow import MlflowClient

    MlflowClient().set_registered_model_alias(name(cfg), alias, version)


@dataclass(frozen=True)
class Files:
    """A training run's model files on this machine: Keras file, SavedModel folder (both absolute paths) and card."""

    keras: str
    saved_model: str
    card: dict[str, Any]


def files(training: dict[str, Any]) -> Files:
    """Downloads the model files of a run from MLflow. training: the figures of 03_train, with run_id and model_uri."""
    import mlflow

    keras_file = mlflow.artifacts.download_artifacts(run_id=training["run_id"], artifact_path="keras/model.keras")
    folder = mlflow.artifacts.download_artifacts(training["model_uri"])
    return Files(
        keras_file,
        str(Path(folder, "artifacts", "saved_model")),
        json.loads(Path(folder, "artifacts", "card.json").read_text()),
    )


def version_of(cfg: Config, alias: str) -> ModelVersion | None:
    """MLflow's ModelVersion (version, run_id, tags) that an alias points at; None if alias or model is unknown.

    Raises MlflowException if the registry fails or refuses access.
    """
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient().get_model_version_by_alias(name(cfg), alias)
    except MlflowException as error:
        # SQLite, a server and Unity Catalog report an unknown model or alias with different codes and messages.
        # Unity Catalog has no search for models that would avoid the error.
        if (
            error.error_code == "RESOURCE_DOES_NOT_EXIST"
            or error.error_code == "INVALID_PARAMETER_VALUE"
            and "not found" in error.message
        ):
            return None
        raise


def load(cfg: Config, alias: str) -> PyFuncModel:
    """The pyfunc model that an alias points at. Raises MlflowException if there is none."""
    import mlflow

    return mlflow.pyfunc.load_model(f"models:/{name(cfg)}@{alias}")
