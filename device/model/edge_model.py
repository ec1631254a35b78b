"""An edge model: a folder of LiteRT files with one manifest, checked before it is trusted, run on JPEG bytes.

    from device.model import edge_model
    porch = edge_model.load(edge_model.folder("edge/", "champion"), "int8")
    edge_model.probabilities(porch, jpeg)        # one float for each of porch.classes

The place that devices read holds versions/<version>/ with manifest.json, written last and never changed, and one pointer for each alias,
champion.json say, which names the version's folder and the digest of its manifest.
"""

import hashlib
import json
import os
from dataclasses import dataclass

from device.model import transform

SCHEMA_VERSION = 2
KEYS = {"model", "version", "classes", "threshold", "transform", "variants", "golden", "lineage"}
OF_VARIANT = {"file", "bytes", "sha256", "input", "tolerance"}


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


def folder(place, alias):
    """The folder of the version that an alias names in the place that devices read. Raises BadModel where its manifest is not the one meant."""
    path = os.path.join(place, f"{alias}.json")
    pointer = _read_json(path)
    if not isinstance(pointer.get("folder"), str) or ".." in pointer["folder"] or os.path.isabs(pointer["folder"]):
        raise BadModel(f"{path}: it names no folder below {place}")
    chosen = os.path.join(place, pointer["folder"])
    manifest = os.path.join(chosen, "manifest.json")
    try:
        with open(manifest, "rb") as file:
            digest = hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise BadModel(f"{manifest}: {error}") from error
    if digest != pointer.get("manifest_sha256"):
        raise BadModel(f"{manifest}: not the manifest that {path} names: fetch the version again")
    return chosen


def read_manifest(folder):
    """The manifest of a version's folder, a dict. Raises BadModel."""
    path = os.path.join(folder, "manifest.json")
    manifest = _read_json(path)
    if missing := KEYS - set(manifest):
        raise BadModel(f"{path}: {', '.join(sorted(missing))} missing")
    for name, entry in manifest["variants"].items():
        if missing := OF_VARIANT - set(entry):
            raise BadModel(f"{path}: variant {name}: {', '.join(sorted(missing))} missing")
    try:
        transform.parse(manifest["transform"])
    except transform.BadTransform as error:
        raise BadModel(f"{path}: {error}: update device/") from error
    return manifest


def _read_json(path):
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: {error}") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise BadModel(f"{path}: schema_version {SCHEMA_VERSION} is understood here, this one differs: update device/")
    return content


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
    side = transform.image_size(manifest["transform"])
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        got = [
            tuple(map(int, detail[0]["shape"]))
            for detail in (interpreter.get_input_details(), interpreter.get_output_details())
        ]
    except (ValueError, RuntimeError) as error:
        raise BadModel(f"{path}: LiteRT can't load it: {error}") from error
    wanted = [(1, side, side, 3), (1, len(manifest["classes"]))]
    if got != wanted:
        raise BadModel(f"{path}: tensors are {got}, the manifest says {wanted}")
    return Model(
        interpreter,
        variant,
        tuple(manifest["classes"]),
        manifest["threshold"],
        manifest["transform"],
        str(manifest["version"]),
    )


def probabilities(model, data):
    """Image bytes -> list of floats, one for each class. Raises transform.BadImage."""
    return invoke(model, transform.pixels(data, model.transform))


def invoke(model, pixels):
    """Raw pixels of the model's transform (bytes) -> list of floats, one for each class."""
    import numpy as np

    wanted = model.interpreter.get_input_details()[0]
    tensor = np.frombuffer(pixels, np.uint8).reshape(wanted["shape"])
    model.interpreter.set_tensor(
        wanted["index"], tensor if wanted["dtype"] == np.uint8 else tensor.astype(wanted["dtype"])
    )
    model.interpreter.invoke()
    return model.interpreter.get_tensor(model.interpreter.get_output_details()[0]["index"])[0].astype(float).tolist()


def decide(scores, classes, threshold):
    """The label for a list of probabilities. Two classes: the second one from the threshold on; more: the likeliest."""
    if len(classes) == 2:
        return classes[int(scores[1] >= threshold)]
    return classes[max(range(len(classes)), key=scores.__getitem__)]
