"""An edge model: a folder of LiteRT files with one manifest, checked before use, run on JPEG bytes.

    from device.model import edge_model
    porch = edge_model.load(edge_model.folder("edge/", "champion"), "int8")
    edge_model.probabilities(porch, jpeg)        # one float for each of porch.classes

Devices read a folder with versions/<version>/ and one pointer file for each alias, such as champion.json. A version's
manifest.json is written last and never changed. A pointer names the folder of a version and the digest of its manifest.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from device.model import transform

SCHEMA_VERSION = 2
KEYS = {"model", "version", "classes", "threshold", "transform", "variants", "golden", "lineage"}
OF_VARIANT = {"file", "bytes", "sha256", "input", "tolerance"}


class BadModel(ValueError):
    """The folder holds no model that can be trusted; the message names the file and the fault."""


@dataclass
class Model:
    """A loaded model: LiteRT's interpreter, and fields of the manifest."""

    interpreter: Any
    variant: str
    classes: tuple[str, ...]
    threshold: float
    transform: str
    version: str


def folder(place: str | os.PathLike[str], alias: str) -> str:
    """The folder of an alias's version. place: the folder that devices read.

    Raises BadModel if the manifest is not the one that the pointer names.
    """
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


def read_manifest(folder: str | os.PathLike[str]) -> dict[str, Any]:
    """The manifest of a version's folder. Raises BadModel."""
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


def _read_json(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
    except (OSError, ValueError) as error:
        raise BadModel(f"{path}: {error}") from error
    if not isinstance(content, dict) or content.get("schema_version") != SCHEMA_VERSION:
        raise BadModel(
            f"{path}: schema_version is not {SCHEMA_VERSION}, the only one that this agent reads: update device/"
        )
    return content


def load(folder: str | os.PathLike[str], variant: str = "float32", threads: int = 1) -> Model:
    """Checks size and SHA-256 of a variant and loads it. Raises BadModel.

    LiteRT silently loads a file with a flipped bit, and a mapped file that is cut kills the process. So the digest is
    checked, and the interpreter gets the model as bytes.
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
        raise BadModel(f"{path}: {len(data)} bytes, not those of the manifest: fetch the model again")
    size = transform.image_size(manifest["transform"])
    try:
        interpreter = Interpreter(model_content=data, num_threads=threads)
        interpreter.allocate_tensors()
        shapes = [
            tuple(map(int, detail[0]["shape"]))
            for detail in (interpreter.get_input_details(), interpreter.get_output_details())
        ]
    except (ValueError, RuntimeError) as error:
        raise BadModel(f"{path}: LiteRT cannot load the file: {error}") from error
    wanted = [(1, size, size, 3), (1, len(manifest["classes"]))]
    if shapes != wanted:
        raise BadModel(f"{path}: tensors are {shapes}, but by the manifest {wanted}")
    return Model(
        interpreter,
        variant,
        tuple(manifest["classes"]),
        manifest["threshold"],
        manifest["transform"],
        str(manifest["version"]),
    )


def probabilities(model: Model, data: bytes) -> list[float]:
    """Image bytes to probabilities, one for each class. Raises transform.BadImage."""
    return invoke(model, transform.pixels(data, model.transform))


def invoke(model: Model, pixels: bytes) -> list[float]:
    """Raw pixels of the model's transform to probabilities, one for each class."""
    import numpy as np

    wanted = model.interpreter.get_input_details()[0]
    tensor = np.frombuffer(pixels, np.uint8).reshape(wanted["shape"])
    model.interpreter.set_tensor(
        wanted["index"], tensor if wanted["dtype"] == np.uint8 else tensor.astype(wanted["dtype"])
    )
    model.interpreter.invoke()
    return model.interpreter.get_tensor(model.interpreter.get_output_details()[0]["index"])[0].astype(float).tolist()


def decide(scores: Sequence[float], classes: Sequence[str], threshold: float) -> str:
    """The label for probabilities. Two classes: the second from the threshold on. More classes: the likeliest."""
    if len(classes) == 2:
        return classes[int(scores[1] >= threshold)]
    return classes[max(range(len(classes)), key=scores.__getitem__)]
