"""Pretrained weights of Keras Applications: which there are, and how they are loaded."""

from __future__ import annotations

import contextlib
import fcntl
import os
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras

from lakevision.platform import workspace

NAME = "backbone"  # of its layer in the joined network


class Known(NamedTuple):
    """A network of keras.applications.

    network: its name there. scale, offset: bring pixels of 0..255 to the range of its training (1, 0: the network does
    this itself). smallest: the smallest side in pixels.
    """

    network: str
    scale: float
    offset: float
    smallest: int


BACKBONES = {
    "mobilenet_v2": Known("MobileNetV2", 1 / 127.5, -1, 32),
    "mobilenet_v3_small": Known("MobileNetV3Small", 1, 0, 32),
    "efficientnet_v2_b0": Known("EfficientNetV2B0", 1, 0, 32),
    "resnet50_v2": Known("ResNet50V2", 1 / 127.5, -1, 32),
}


class BadWeights(ValueError):
    """training.weights names weights that are missing or do not fit; the message says what to do."""


def located(model: str, weights: str) -> str:
    """training.weights as a Setting holds them: none for a network without backbone, imagenet, or an absolute path.

    Relative paths start at the repository. Raises BadWeights if the file does not exist.
    """
    if model not in BACKBONES or weights == "none":
        return "none"
    if weights == "imagenet":
        return weights
    path = Path(weights) if os.path.isabs(weights) else workspace.REPOSITORY / weights
    if not path.is_file():
        raise BadWeights(
            f"training.weights: {path} is not a file; expected imagenet, none, or a .weights.h5, .h5 or .keras file"
        )
    return str(path)


def network(known: Known, side: int, weights: str) -> keras.Model:
    """The network of keras.applications without its top, with its weights unless they are in a .keras file."""
    make = getattr(keras.applications, known.network)
    shape = {"input_shape": (side, side, 3), "include_top": False}
    if weights == "imagenet":
        try:
            with _alone(), warnings.catch_warnings():
                # Keras lacks weights for some sides, takes those of 224 px and warns. Convolutions fit any side.
                warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
                return make(weights="imagenet", **shape)
        except Exception as error:
            # Keras raises a bare Exception if the download fails, OSError or ValueError if the file is incomplete.
            raise BadWeights(
                f"training.weights: imagenet: Keras could not get the weights of {known.network} for {side} px: "
                f"{error}. "
                "This needs the network once on each machine. Without the network: fetch the file of that address "
                f"elsewhere and put it into {_models()} under its own name, or set training.weights=<path>. If a file "
                "of that name is there already, it is half a file: delete it. Or train from scratch: "
                "training.weights=none, or training.model=small_cnn"
            ) from error
    network = make(weights=None, **shape)
    if weights != "none" and not weights.endswith(".keras"):
        try:
            network.load_weights(weights)
        except (ValueError, OSError, KeyError) as error:
            raise BadWeights(
                f"training.weights: {weights} holds no weights of "
                f"keras.applications.{known.network}(include_top=False), or is damaged: {error}"
            ) from error
    return network


def copy_saved(made: keras.Model, inner: keras.Model, path: str) -> None:
    """Copies the weights of a saved model: of an earlier run (keras/model.keras), or a network without its top."""
    try:
        loaded = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BadWeights(f"training.weights: {path} is not a Keras model, or is damaged: {error}") from error
    inside = [layer for layer in loaded.layers if layer.name == NAME]
    given, wanted = (inside[0], made) if inside else (loaded, inner)
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (given, wanted)]
    if shapes[0] != shapes[1]:
        other = "" if len(shapes[0]) != len(shapes[1]) else " of other shapes"
        raise BadWeights(
            f"training.weights: {path} holds another network than {inner.name} without its top: {len(shapes[0])} "
            f"arrays of weights, {len(shapes[1])} expected{other}"
        )
    wanted.set_weights(given.get_weights())


def _models() -> Path:
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "models")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Admits one process of a machine at a time. Ranks that start together would read a file while one downloads it."""
    _models().mkdir(parents=True, exist_ok=True)
    with open(_models() / ".lakevision.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
