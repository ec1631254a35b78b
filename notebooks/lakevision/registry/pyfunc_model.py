"""The model that MLflow loads: image bytes, base64 text of them, or a file's path, to label and probabilities. MLflow runs this file as it is
(models from code).

A bad image spoils its own row only: its label is null and its error says why. A service reads no files: whoever sends it a path is told so.
"""

import base64
import binascii
import json
import os
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd

from device.model import edge_model, transform

BATCH = 64  # images at a time: bounds the memory at 64 * 224 * 224 * 3 * 4 = 39 MB


class PhotoModel(mlflow.pyfunc.PythonModel):
    """Input: DataFrame with a column `image` of bytes or base64 text, or a column `path`, or both: the path counts where there is no image.
    Output: DataFrame of label, probability (of that label), scores, error."""

    def load_context(self, context):
        import tensorflow as tf

        with open(context.artifacts["card"]) as file:
            self.card = json.load(file)
        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])  # kept: its functions die with it

    def predict(self, context, model_input: pd.DataFrame, params=None):
        return pd.DataFrame(self.rows(images_of(model_input)), columns=["label", "probability", "scores", "error"])

    def rows(self, images):
        """(label, probability, scores, error) of each in a list of bytes, base64 texts or Paths: what the REST service calls, without pandas around it."""
        return [row for start in range(0, len(images), BATCH) for row in self._batch(images[start : start + BATCH])]

    def _batch(self, images):
        side, classes = transform.image_size(self.card["transform"]), self.card["classes"]
        pixels, errors = [], []
        for image in images:
            try:
                pixels.append(transform.pixels(as_bytes(image), self.card["transform"]))
                errors.append(None)
            except transform.BadImage as error:
                errors.append(str(error))
        scores = iter(())
        if pixels:
            array = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, side, side, 3).astype(np.float32)
            scores = iter(self.loaded.serve(array).numpy().astype(float).tolist())
        rows = []
        for error in errors:
            if error:
                rows.append((None, None, None, error))
                continue
            given = next(scores)
            label = edge_model.decide(given, classes, self.card["threshold"])
            rows.append((label, given[classes.index(label)], given, None))
        return rows


def images_of(model_input):
    """The list of bytes, base64 texts and Paths in what predict() was given."""
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    images = list(model_input["image"]) if "image" in model_input else [None] * len(model_input)
    paths = list(model_input["path"]) if "path" in model_input else [None] * len(model_input)
    return [Path(path) if image is None and isinstance(path, str) else image for image, path in zip(images, paths)]


def as_bytes(image):
    """Bytes of an image given as bytes, base64 text or the Path of a file. Raises transform.BadImage."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if isinstance(image, Path):
        if os.environ.get("MLFLOW_IS_IN_SERVING_ENVIRONMENT") == "true":
            raise transform.BadImage("a service reads no files: send the image")
        try:
            return image.read_bytes()
        except OSError as error:
            raise transform.BadImage(f"{image}: {error.strerror}") from error
    if image is None:
        raise transform.BadImage("no image")
    if not isinstance(image, str):
        raise transform.BadImage(f"expected bytes or base64 text, got {type(image).__name__}")
    try:
        return base64.b64decode(image, validate=True)
    except (binascii.Error, ValueError) as error:
        raise transform.BadImage(f"text that is not base64: {error}") from error


mlflow.models.set_model(PhotoModel())
