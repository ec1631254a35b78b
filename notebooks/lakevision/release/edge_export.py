"""LiteRT files of a model for the device: float32, float16 and int8.

TensorFlow's converter (LLVM) aborts the whole process on some errors, so it runs in a process of its own:

    python -m lakevision.release.edge_export SAVED_MODEL CALIBRATION.npy FOLDER
"""

import hashlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lakevision.platform import workspace

# {variant: (dtype of the input, tolerance)}. A device must not use a file if the probabilities of its golden images
# differ by more than the tolerance from those computed here. Another CPU rounds differently, in float32 by 1e-6; a
# wrong kernel or a damaged file is wrong by tenths.
VARIANTS = {"float32": ("float32", 0.001), "float16": ("float32", 0.02), "int8": ("uint8", 0.1)}


class CannotConvert(RuntimeError):
    """TensorFlow's converter failed; the message ends with its output."""


def export(saved_model: str | Path, calibration: np.ndarray, folder: str | Path) -> dict[str, dict]:
    """Writes float32.tflite, float16.tflite and int8.tflite into folder. Raises CannotConvert.

    saved_model: its folder; calibration: uint8 (n, image_size, image_size, 3), which sets the ranges of int8. Returns
    {variant: its entry in the manifest: file, bytes, sha256, input, tolerance}.
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


def digest(data: bytes) -> dict:
    """The description of a file's bytes in a manifest: {"bytes", "sha256"}."""
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def convert(saved_model: str, calibration: np.ndarray, folder: str) -> None:
    """Writes the three files; arguments as of export(). Call it in a process of its own."""
    import tensorflow as tf

    def samples() -> Iterator[list[np.ndarray]]:
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
    converter.inference_input_type = tf.uint8  # takes the transform's own pixels, without a float copy
    Path(folder, "int8.tflite").write_bytes(converter.convert())


if __name__ == "__main__":
    convert(sys.argv[1], np.load(sys.argv[2]), sys.argv[3])
