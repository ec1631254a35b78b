"""LiteRT files for the device, with the manifest that lets it trust them.

Conversion aborts a whole process when something is amiss (LLVM), so it runs in one of its own:

    python -m lakevision.edge SAVED_MODEL CALIBRATION.npy FOLDER
"""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from device import model
from lakevision import workspace


class CannotConvert(RuntimeError):
    """TensorFlow's converter failed; the message ends with what it printed."""


def export(saved_model, calibration, folder, card):
    """Writes float32.tflite, int8.tflite and manifest.json into folder. Returns the manifest.

    saved_model: its folder; calibration: uint8 (n, side, side, 3), what the int8 ranges are measured on; card: dict of
    version, classes, threshold, transform and lineage, which goes into the manifest. Raises CannotConvert.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    sample = folder / "calibration.npy"
    np.save(sample, calibration)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run([sys.executable, "-m", "lakevision.edge", str(saved_model), str(sample), str(folder)],
                          capture_output=True, text=True, env=environment, cwd=workspace.REPOSITORY)
    sample.unlink()
    if done.returncode:
        raise CannotConvert(f"exit status {done.returncode} converting {saved_model}\n{done.stderr[-3000:]}")
    variants = {}
    for variant, dtype in (("float32", "float32"), ("int8", "uint8")):
        data = (folder / f"{variant}.tflite").read_bytes()
        variants[variant] = {"file": f"{variant}.tflite", "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest(), "input": dtype}
    manifest = {"schema_version": model.SCHEMA_VERSION, "variants": variants, **card}
    partial = folder / "manifest.part"
    partial.write_text(json.dumps(manifest, indent=2, sort_keys=True))
    os.replace(partial, folder / "manifest.json")  # last: a folder with a manifest is whole
    return manifest


def convert(saved_model, calibration, folder):
    """Writes both files. Runs in a process of its own, see above."""
    import tensorflow as tf

    def samples():
        for image in calibration:
            yield [image[None].astype(np.float32)]

    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    Path(folder, "float32.tflite").write_bytes(converter.convert())
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model))
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = samples
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = tf.uint8  # the transform's own pixels go in, with no float copy
    Path(folder, "int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    convert(sys.argv[1], np.load(sys.argv[2]), sys.argv[3])
