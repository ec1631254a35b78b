"""Edge bundles for tests: small models made by TensorFlow's converter in a process of its own, and the place that
devices read.

    python bundles.py FOLDER       writes the models: <kind>-<variant>.tflite

The kinds all look at the brightness alone, so that a test knows what they should say: good and other disagree about
every frame.
"""

import hashlib
import io
import json
import random
import shutil
import subprocess
import sys
from pathlib import Path

SIDE = 32
TRANSFORM = f"decode|upright|rgb|resize({SIDE})"
KINDS = ("good", "other", "shape", "three", "slow", "nan", "cnn")
VARIANTS = {"float32": "float32", "float16": "float32", "int8": "uint8"}


def build(folder):
    """Writes all models into folder, by a process of its own."""
    Path(folder).mkdir(exist_ok=True)
    done = subprocess.run([sys.executable, __file__, str(folder)], capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(folder)


def photo(grey, size=(64, 48), seed=0):
    """A JPEG of about this brightness, 0 to 255."""
    from PIL import Image

    rng = random.Random(f"{grey}-{seed}")
    out = io.BytesIO()
    Image.frombytes(
        "RGB", size, bytes(min(255, max(0, grey + rng.randint(-20, 20))) for _ in range(size[0] * size[1] * 3))
    ).save(out, "JPEG", quality=90)
    return out.getvalue()


def empty_manifest(version, kind):
    """A manifest without variants and golden images."""
    from device.model import edge_model

    lineage = {"run_id": "r", "delta_version": 1, "commit": "c", "split_scheme": "s"}
    return {
        "schema_version": edge_model.SCHEMA_VERSION,
        "model": "lakevision",
        "version": version,
        "classes": ["a", "b", "c"] if kind == "three" else ["empty", "package"],
        "threshold": 0.5,
        "transform": f"decode|upright|rgb|resize({side(kind)})",
        "variants": {},
        "golden": [],
        "lineage": {**lineage, "made_at": "2026-11-24T00:00:00Z"},
    }


def make(models, folder, version, kind="good", variants=("float32", "int8"), golden=(40, 90, 150, 200), **changes):
    """Writes a bundle as edge.py does; changes go over the manifest. Returns the manifest."""
    from device.model import edge_model

    folder = Path(folder)
    (folder / "golden").mkdir(parents=True)
    manifest = empty_manifest(version, kind)
    for variant in variants:
        data = (Path(models) / f"{kind}-{variant}.tflite").read_bytes()
        (folder / f"{variant}.tflite").write_bytes(data)
        manifest["variants"][variant] = {
            "file": f"{variant}.tflite",
            **described(data),
            "input": VARIANTS[variant],
            "largest": 0.0,
            "agreement": 1.0,
            "p50_ms": 1.0,
            "p90_ms": 1.2,
            "tolerance": 0.001 if variant == "float32" else 0.02,
        }
    for index, grey in enumerate(golden):
        data = photo(grey)
        (folder / "golden" / f"{index}.jpg").write_bytes(data)
        manifest["golden"].append({"file": f"golden/{index}.jpg", **described(data), "label": "package", "scores": {}})
    write_manifest(folder, manifest)
    for variant in variants:
        loaded = edge_model.load(str(folder), variant)
        for golden_entry in manifest["golden"]:
            golden_entry["scores"][variant] = edge_model.probabilities(
                loaded, (folder / golden_entry["file"]).read_bytes()
            )
    manifest.update(changes)
    write_manifest(folder, manifest)
    return manifest


def side(kind):
    """Pixels that the transform of a kind makes."""
    return 96 if kind in ("slow", "cnn") else SIDE


def described(data):
    """{"bytes", "sha256"} of a file."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def write_manifest(folder, manifest):
    (Path(folder) / "manifest.json").write_text(json.dumps(manifest))


def point(place, version, alias="champion"):
    """Points an alias of a published folder at a version."""
    data = (Path(place) / "versions" / version / "manifest.json").read_bytes()
    pointer = {
        "schema_version": 2,
        "alias": alias,
        "version": version,
        "folder": f"versions/{version}",
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "manifest_bytes": len(data),
        "made_at": "2026-11-24T00:00:00Z",
    }
    temporary = Path(place) / f"{alias}.new"
    temporary.write_text(json.dumps(pointer))
    temporary.replace(Path(place) / f"{alias}.json")
    return pointer


def publish(models, place, version, kind="good", **more):
    """Makes a version in a published folder and points champion at it. Returns the pointer."""
    folder = Path(place) / "versions" / version
    if folder.exists():
        shutil.rmtree(folder)
    make(models, folder, version, kind, **more)
    return point(place, version)


def _network(kind):
    import keras
    import numpy as np

    height = 16 if kind == "shape" else side(kind)
    given = keras.Input((height, height, 3))
    x = given
    if kind == "slow":
        for _ in range(3):
            x = keras.layers.Conv2D(96, 3, padding="same", kernel_initializer="zeros")(x)
        x = keras.layers.Add()([keras.layers.Conv2D(3, 1, kernel_initializer="zeros")(x), given])
    if kind == "cnn":  # as large as a real one for this task, and as little to the point as "slow"
        for width in (16, 32, 64):
            x = keras.layers.MaxPooling2D()(keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x))
        x = keras.layers.Conv2D(3, 1)(x)
    mean = keras.layers.GlobalAveragePooling2D()(x)
    if kind == "nan":
        mean = keras.layers.Lambda(lambda value: value + 0 * keras.ops.log(220.0 - value))(
            mean
        )  # NaN for a bright picture
    classes = 3 if kind == "three" else 2
    dense = keras.layers.Dense(classes, activation="softmax")
    network = keras.Model(given, dense(mean))
    steep = 0.03 / 3 * (-1 if kind == "other" else 1)
    weights = np.full((3, classes), 0.0, np.float32)
    weights[:, 1] = steep
    bias = np.zeros(classes, np.float32)
    bias[1] = -steep * 3 * 120
    dense.set_weights([weights, bias])
    return network, height


def _convert(folder):
    import numpy as np
    import tensorflow as tf

    for kind in KINDS:
        network, height = _network(kind)
        saved = str(Path(folder) / f"{kind}-saved")
        network.export(saved)
        for variant in VARIANTS if kind == "good" else ("float32", "int8") if kind == "other" else ("float32",):
            converter = tf.lite.TFLiteConverter.from_saved_model(saved)
            if variant != "float32":
                converter.optimizations = [tf.lite.Optimize.DEFAULT]
            if variant == "float16":
                converter.target_spec.supported_types = [tf.float16]
            if variant == "int8":
                converter.representative_dataset = lambda height=height: (
                    [np.full((1, height, height, 3), grey, np.float32)] for grey in range(0, 256, 5)
                )
                converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
                converter.inference_input_type = tf.uint8
            (Path(folder) / f"{kind}-{variant}.tflite").write_bytes(converter.convert())
        shutil.rmtree(saved)


if __name__ == "__main__":
    _convert(sys.argv[1])
