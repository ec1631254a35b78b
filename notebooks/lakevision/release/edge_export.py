"""LiteRT files for the device, with the manifest that lets it trust them, and the place where it finds them (see device/model/edge_model.py).

Conversion aborts a whole process when something is amiss (LLVM), so it runs in one of its own:

    python -m lakevision.release.edge_export SAVED_MODEL CALIBRATION.npy FOLDER
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import uuid
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from device.model import edge_model
from lakevision.platform import workspace

# {variant: (dtype of the input, by how much probabilities of the golden images may differ on a device from those here before it must not use it)}.
# Another CPU rounds otherwise, in float32 by 1e-6; a wrong kernel or a damaged file is wrong by tenths.
VARIANTS = {"float32": ("float32", 0.001), "float16": ("float32", 0.02), "int8": ("uint8", 0.1)}


class CannotConvert(RuntimeError):
    """TensorFlow's converter failed; the message ends with what it printed."""


def export(saved_model, calibration, folder):
    """Writes float32.tflite, float16.tflite and int8.tflite into folder. Returns {variant: its entry of the manifest: file, bytes, sha256, input,
    tolerance}.

    saved_model: its folder; calibration: uint8 (n, side, side, 3), what the int8 ranges are measured on. Raises CannotConvert.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sample = folder / "calibration.npy"
    np.save(sample, calibration)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run(
        [sys.executable, "-m", "lakevision.release.edge_export", str(saved_model), str(sample), str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=workspace.REPOSITORY,
    )
    sample.unlink()
    if done.returncode:
        raise CannotConvert(f"exit status {done.returncode} converting {saved_model}\n{done.stderr[-3000:]}")
    variants = {}
    for variant, (dtype, tolerance) in VARIANTS.items():
        variants[variant] = {
            "file": f"{variant}.tflite",
            **digest((folder / f"{variant}.tflite").read_bytes()),
            "input": dtype,
            "tolerance": tolerance,
        }
    return variants


def digest(data):
    """What a manifest says of a file's bytes: {"bytes", "sha256"}."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def seal(folder, manifest):
    """Writes a manifest (dict, without schema_version) into a version's folder. A folder with a manifest is whole, so this comes last."""
    partial = Path(folder, "manifest.part")
    partial.write_text(json.dumps({"schema_version": edge_model.SCHEMA_VERSION, **manifest}, indent=2, sort_keys=True))
    os.replace(partial, Path(folder, "manifest.json"))


def publish(built, place, version):
    """Copies a sealed folder to versions/<version> of the place that devices read (a folder, or a volume, which renames no folders).

    A version that lies there is never changed: a device may be fetching it. Raises FileExistsError."""
    there = Path(place, "versions", version)
    if found := published(place, version):
        raise FileExistsError(
            f"{there}: version {version} has been published before, of model {found}. Models can't share a place: see storage.edge"
        )
    shutil.rmtree(there, ignore_errors=True)  # half a copy of a run that was killed
    there.mkdir(parents=True)
    for path in sorted(Path(built).rglob("*")):
        to = there / path.relative_to(built)
        if path.is_file() and path.name != "manifest.json":
            to.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, to)  # bytes only: a volume keeps no modes
    shutil.copyfile(Path(built, "manifest.json"), there / "manifest.part")
    os.replace(there / "manifest.part", there / "manifest.json")


def published(place, version):
    """The model that a version which lies in the place is of; "" where none does."""
    try:
        return json.loads(Path(place, "versions", version, "manifest.json").read_text())["model"]
    except FileNotFoundError:
        return ""


def point(place, alias, version):
    """Makes an alias of the place that devices read name a published version. Raises FileNotFoundError where it has not been published."""
    data = Path(place, "versions", version, "manifest.json").read_bytes()
    pointer = {
        "schema_version": edge_model.SCHEMA_VERSION,
        "alias": alias,
        "version": version,
        "folder": f"versions/{version}",
        "manifest_sha256": hashlib.sha256(data).hexdigest(),
        "manifest_bytes": len(data),
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    partial = Path(place, f"{alias}.{uuid.uuid4().hex[:8]}.part")
    partial.write_text(json.dumps(pointer, indent=2))
    os.replace(partial, Path(place, f"{alias}.json"))


def convert(saved_model, calibration, folder):
    """Writes the three files. Runs in a process of its own, see above."""
    import tensorflow as tf

    def samples():
        for image in calibration:
            yield [image[None].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    Path(folder, "float32.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.target_spec.supported_types = [tf.float16]
    Path(folder, "float16.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8  # the transform's own pixels go in, with no float copy
    Path(folder, "int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    convert(sys.argv[1], np.load(sys.argv[2]), sys.argv[3])
