"""The registered model: images in, labels and probabilities out. MLflow runs this file unchanged (models from code).

An image is bytes, base64 text or the path of a file. A bad image affects its own row only: the label is null and the
error gives the reason. A service reads no files: a path is answered with an error.
"""

import base64
import binascii
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd

from device.model import edge_model, transform

BATCH = 64  # images at a time: bounds the memory at 64 * 224 * 224 * 3 * 4 = 39 MB


class PhotoModel(mlflow.pyfunc.PythonModel):
    """The pyfunc model.

    Input: DataFrame with a column `image` of bytes or base64 text, or a column `path`, or both. The path counts if
    there is no image. Output: DataFrame of label, probability (of that label), scores (of all classes) and error.
    """

    def load_context(self, context: Any) -> None:
        """Loads card and network. context: MLflow's, with the artifacts card and saved_model."""
        import tensorflow as tf

        with open(context.artifacts["card"]) as file:
            self.card = json.load(file)
        self.loaded = tf.saved_model.load(context.artifacts["saved_model"])  # kept: its functions die with it

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> pd.DataFrame:
        """The output described above, one row for each image. context and params, which MLflow passes, are unused."""
        return pd.DataFrame(self.rows(images_of(model_input)), columns=["label", "probability", "scores", "error"])

    def rows(self, images: Sequence[Any]) -> list[tuple]:
        """(label, probability, scores, error) of each image. The REST service calls this, without pandas around it.

        images: bytes, base64 texts or Paths.
        """
        return [row for start in range(0, len(images), BATCH) for row in self._batch(images[start : start + BATCH])]

    def _batch(self, images: Sequence[Any]) -> list[tuple]:
        size, classes = transform.image_size(self.card["transform"]), self.card["classes"]
        pixels: list[bytes] = []
        reasons: list[str | None] = []
        for image in images:
            try:
                pixels.append(transform.pixels(as_bytes(image), self.card["transform"]))
                reasons.append(None)
            except transform.BadImage as error:
                reasons.append(str(error))
        all_scores: Iterator[list[float]] = iter(())
        if pixels:
            array = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, size, size, 3).astype(np.float32)
            all_scores = iter(self.loaded.serve(array).numpy().astype(float).tolist())
        rows: list[tuple] = []
        for reason in reasons:
            if reason:
                rows.append((None, None, None, reason))
                continue
            scores = next(all_scores)
            label = edge_model.decide(scores, classes, self.card["threshold"])
            rows.append((label, scores[classes.index(label)], scores, None))
        return rows


def images_of(model_input: pd.DataFrame | Iterable[Any]) -> list[Any]:
    """The images in the input of predict(): bytes, base64 texts, Paths or None.

    model_input: DataFrame with the columns image, path or both; or a list of images.
    """
    if not isinstance(model_input, pd.DataFrame):
        return list(model_input)
    images = list(model_input["image"]) if "image" in model_input else [None] * len(model_input)
    paths = list(model_input["path"]) if "path" in model_input else [None] * len(model_input)
    return [
        Path(path) if image is None and isinstance(path, str) else image
        for image, path in zip(images, paths, strict=True)
    ]


def as_bytes(image: Any) -> bytes:
    """The bytes of an image given as bytes, base64 text or the Path of a file.

    Raises transform.BadImage for every other value, for text that is not base64 and for an unreadable file.
    """
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
