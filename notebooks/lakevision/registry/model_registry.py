"""The model in MLflow: logged by 03_train, registered and given its alias by 04_deploy, loaded by alias everywhere else."""

import contextlib
import io
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from lakevision.platform import workspace

REQUIREMENTS = ("numpy", "pandas", "pillow", "mlflow")  # and TensorFlow, see tensorflow()


def card(cfg, cache, **lineage):
    """What must travel with a model for it to be used rightly: classes, transform, threshold, and where it comes from."""
    return {
        "classes": list(cache.classes),
        "transform": cache.transform,
        "threshold": cfg.training.threshold,
        "delta_version": cache.delta_version,
        "commit": workspace.commit(),
        **lineage,
    }


def log(network, model_card, example):
    """Logs a Keras model with its card into the active run, as a pyfunc. example: bytes of an image. Returns its URI."""
    from importlib.metadata import version

    import mlflow
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, Schema
    from mlflow.types.schema import Array

    signature = ModelSignature(
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
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder, "saved_model")
        with contextlib.redirect_stdout(io.StringIO()):  # Keras prints the addresses of all its tensors
            network.export(str(saved))
        Path(folder, "card.json").write_text(json.dumps(model_card, indent=2))
        # Given, not inferred: MLflow's inference takes 13 s and pins what happens to be imported.
        pins = [f"{name}=={version(name)}" for name in (tensorflow(), *REQUIREMENTS)]
        logged = mlflow.pyfunc.log_model(
            name="model",
            python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            signature=signature,
            pip_requirements=pins,
            artifacts={"saved_model": str(saved), "card": str(Path(folder, "card.json"))},
            code_paths=[str(workspace.REPOSITORY / "device")],
            input_example=pd.DataFrame({"image": [example]}),
        )
    return logged.model_uri


def tensorflow():
    """The distribution that TensorFlow comes from here: tensorflow-cpu of requirements.txt, tensorflow on a runtime with GPUs."""
    from importlib.metadata import packages_distributions

    found = packages_distributions().get("tensorflow", [])
    return next(name for name in ("tensorflow-cpu", "tensorflow", *found) if name in found)


def name(cfg):
    """The registered model's full name."""
    return ".".join(filter(None, (cfg.storage.catalog, cfg.storage.catalog and cfg.storage.schema, cfg.deploy.model)))


def register(cfg, model_uri, tags):
    """Registers a logged model as a new version. Returns the version, text."""
    import mlflow

    mlflow_version = mlflow.register_model(model_uri, name(cfg), tags={key: str(value) for key, value in tags.items()})
    return str(mlflow_version.version)


def set_alias(cfg, alias, version):
    """Points an alias (champion, challenger) at a version."""
    from mlflow import MlflowClient

    MlflowClient().set_registered_model_alias(name(cfg), alias, version)


@dataclass(frozen=True)
class Files:
    """A training run's model files on this machine: the Keras file, the SavedModel folder, the card."""

    keras: str
    saved_model: str
    card: dict


def files(training):
    """Fetches the model files of a run from MLflow. training: the figures of 03_train. Returns Files."""
    import mlflow

    keras = mlflow.artifacts.download_artifacts(run_id=training["run_id"], artifact_path="keras/model.keras")
    folder = mlflow.artifacts.download_artifacts(training["model_uri"])
    return Files(
        keras,
        str(Path(folder, "artifacts", "saved_model")),
        json.loads(Path(folder, "artifacts", "card.json").read_text()),
    )


def version_of(cfg, alias):
    """The model version (MLflow's own object: version, tags) that an alias points at, or None."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    try:
        return MlflowClient().get_model_version_by_alias(name(cfg), alias)
    except MlflowException as error:
        # No such model, no such alias: a file of sqlite, a server and Unity Catalog (which searches no models) say each in words of its own.
        if (
            error.error_code == "RESOURCE_DOES_NOT_EXIST"
            or error.error_code == "INVALID_PARAMETER_VALUE"
            and "not found" in error.message
        ):
            return None
        raise


def load(cfg, alias):
    """The pyfunc model that an alias points at."""
    import mlflow

    return mlflow.pyfunc.load_model(f"models:/{name(cfg)}@{alias}")
