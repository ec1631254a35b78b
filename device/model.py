"""An edge model: a folder of LiteRT files with one manifest, checked before it is trusted, run on JPEG bytes.

    from device import model
    porch = model.load("edge/", "int8")
    model.probabilities(porch, jpeg)        # one float for each of porch.classes
"""

import hashlib
import json
import os
from dataclasses import dataclass

from . import transform

SCHEMA_VERSION = 1


class BadModel(ValueError):
    """The folder holds no model that can be trusted; the message names the file and what is wrong."""


@dataclass
class Model:
    """A loaded model. interpreter: LiteRT's; the rest is the manifest's."""

    interpreter: object
    variant: str
    classes: tuple
    threshold: float
    transform: str
    version: str


def read_manifest(folder):
    """The manifest of a folder, a dict. Raises BadModel."""
    path = os.path.join(folder, "manifest.json")
    try:
        with open(path, encoding="utf-8") as file:
            manifest = json.load(file)
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: {error}") from error
    if not isinstance(manifest, dict) or manifest.get("schema_version") != SCHEMA_VERSION:
        raise BadModel(f"{path}: schema_version {SCHEMA_VERSION} is understood here, this one differs: update device/")
    missing = {"classes", "threshold", "transform", "variants", "version"} - set(manifest)
    if missing:
        raise BadModel(f"{path}: {', '.join(sorted(missing))} missing")
    return manifest


def load(folder, variant="float32", threads=1):
    """Checks size and SHA-256 of a variant and loads it. Returns Model; raises BadModel.

    LiteRT loads a file with a flipped bit without a word, and dies by signal when a mapped file is cut: so the digest is
    checked, and the model is given to the interpreter as bytes.
    """
    from ai_edge_litert.interpreter import Interpreter

    manifest = read_manifest(folder)
    if variant not in manifest["variants"]:
        raise BadModel(f"{folder}: no variant {variant!r}; there are {', '.join(manifest['variants'])}")
    entry = manifest["variants"][variant]
    path = os.path.join(folder, entry["file"])
    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise BadModel(f"{path}: {error}") from error
    if len(data) != entry["bytes"] or hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise BadModel(f"{path}: {len(data)} bytes that are not those of the manifest: fetch the model again")
    side = transform.side(manifest["transform"])
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        got = [tuple(map(int, detail[0]["shape"])) for detail in (interpreter.get_input_details(), interpreter.get_output_details())]
    except (ValueError, RuntimeError) as error:
        raise BadModel(f"{path}: LiteRT can't load it: {error}") from error
    wanted = [(1, side, side, 3), (1, len(manifest["classes"]))]
    if got != wanted:
        raise BadModel(f"{path}: tensors are {got}, the manifest says {wanted}")
    return Model(interpreter, variant, tuple(manifest["classes"]), manifest["threshold"], manifest["transform"], str(manifest["version"]))


def probabilities(model, data):
    """Image bytes -> list of floats, one for each class. Raises transform.BadImage."""
    return invoke(model, transform.pixels(data, model.transform))


def invoke(model, pixels):
    """Raw pixels of the model's transform (bytes) -> list of floats, one for each class."""
    import numpy as np

    wanted = model.interpreter.get_input_details()[0]
    tensor = np.frombuffer(pixels, np.uint8).reshape(wanted["shape"])
    model.interpreter.set_tensor(wanted["index"], tensor if wanted["dtype"] == np.uint8 else tensor.astype(wanted["dtype"]))
    model.interpreter.invoke()
    return model.interpreter.get_tensor(model.interpreter.get_output_details()[0]["index"])[0].astype(float).tolist()


def decide(scores, classes, threshold):
    """The label for a list of probabilities. Two classes: the second one from the threshold on; more: the likeliest."""
    if len(classes) == 2:
        return classes[int(scores[1] >= threshold)]
    return classes[max(range(len(classes)), key=scores.__getitem__)]
