"""Compares all serving paths of a model on the same bytes: Keras, pyfunc, Spark, REST and LiteRT.

The reference is Keras on pixels of the training's transform. LiteRT runs in the device's own code.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from PIL import Image

from device.model import edge_model, transform
from lakevision.serving.rest import client
from lakevision.serving.spark import score

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

    from lakevision.dataset import feed

REFERENCE = "Keras"
EXACT = ("pyfunc", "Spark", "REST", "LiteRT float32")  # may differ from the reference by rounding only
VARIANTS = {"float32": "LiteRT float32", "float16": "LiteRT float16", "int8": "LiteRT int8"}


@dataclass
class Parity:
    """The scores of all paths on the same images.

    scores: {path: for each image a float array (classes,), or None if the path refused the image}; classes, threshold:
    of the model; names, images: names and bytes of the images; milliseconds: {variant: float array, time for decode,
    transform and invoke of each image that decodes, on one thread}.
    """

    scores: dict[str, list[np.ndarray | None]]
    classes: tuple[str, ...]
    threshold: float
    names: list[str]
    images: list[bytes]
    milliseconds: dict[str, np.ndarray] = field(default_factory=dict)

    def apart(self, path: str) -> np.ndarray:
        """Largest difference from Keras' probabilities for each image, float (n,).

        0 if both paths refuse the image, infinite if only one does.
        """
        pairs = zip(self.scores[REFERENCE], self.scores[path], strict=True)
        return np.array([_difference(reference, other) for reference, other in pairs])

    def largest(self, path: str) -> float:
        """The largest difference of a path from Keras' probabilities, over all images."""
        return float(self.apart(path).max())

    def agreement(self, path: str) -> float:
        """Share of the decodable images for which a path gives the same label as Keras, 0 to 1."""
        same = [
            other is not None and self._label(reference) == self._label(other)
            for reference, other in zip(self.scores[REFERENCE], self.scores[path], strict=True)
            if reference is not None
        ]
        return float(np.mean(same))

    def _label(self, scores: np.ndarray) -> str:
        return edge_model.decide(list(scores), self.classes, self.threshold)

    @property
    def exact(self) -> float:
        """The largest difference of all paths that may differ by rounding only."""
        return max(self.largest(path) for path in self.scores if path in EXACT)


def _difference(reference: np.ndarray | None, other: np.ndarray | None) -> float:
    if reference is None and other is None:
        return 0.0
    if reference is None or other is None:
        return np.inf
    return float(np.abs(reference - other).max())


HARD = (
    "turned by EXIF",
    "greyscale",
    "CMYK",
    "progressive, quality 30",
    "PNG with transparency",
    "12 megapixels",
    "8 x 8 pixels",
    "cut in half",
    "HTML",
)


def hard(photograph: bytes) -> list[tuple[str, bytes]]:
    """[(name, bytes)] of unusual files that cameras and people send, made from one photograph.

    All paths must refuse the last two.
    """
    image = transform.decode(photograph).convert("RGB")
    image.thumbnail((1600, 1600))  # a PNG of 12 megapixels is larger than a request may be

    def saved(changed: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
        out = io.BytesIO()
        changed.save(out, kind, **options)
        return out.getvalue()

    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees, by the tag alone
    clear = image.convert("RGBA")
    clear.putalpha(Image.linear_gradient("L").resize(image.size))
    return list(
        zip(
            HARD,
            [
                saved(image, exif=exif),
                saved(image.convert("L")),
                saved(image.convert("CMYK")),
                saved(image, quality=30, progressive=True),
                saved(clear, "PNG"),
                saved(image.resize((4000, 3000))),
                saved(image.resize((8, 8))),
                photograph[: len(photograph) // 2],
                b"<html>404 Not Found</html>",
            ],
            strict=True,
        )
    )


def compare(
    spark: SparkSession,
    held_out: pd.DataFrame,
    keras_file: str,
    model_uri: str,
    pyfunc: Any,
    url: str,
    edge_folder: str,
) -> Parity:
    """Scores the same bytes on all paths.

    held_out: label and image (decodable bytes); keras_file: path; model_uri: of the version; pyfunc: the same version,
    loaded; url: of its REST service; edge_folder: its edge files with their manifest.
    """
    manifest = edge_model.read_manifest(edge_folder)
    plain = zip(held_out["label"].fillna("no label"), held_out["image"], strict=True)
    named = [*hard(held_out["image"].iloc[0]), *plain]
    names, images = [name for name, _ in named], [image for _, image in named]
    scores = {REFERENCE: in_keras(images, keras_file, manifest["transform"])}
    scores["pyfunc"] = _arrays(pyfunc.predict(pd.DataFrame({"image": images}))["scores"])
    scores["Spark"] = _arrays(score.few(spark, model_uri, images))
    service = client.Client(url)
    try:
        scores["REST"] = [over_rest(service, image) for image in images]
    finally:
        service.close()
    milliseconds = {}
    for variant, path in VARIANTS.items():
        scores[path], milliseconds[variant] = on_device(images, edge_model.load(edge_folder, variant))
    return Parity(scores, tuple(manifest["classes"]), manifest["threshold"], names, images, milliseconds)


def in_keras(images: list[bytes], keras_file: str, line: str) -> list[np.ndarray | None]:
    """Probabilities of the Keras file on pixels of the training's transform, float32 (classes,) for each image.

    line: the transform. None for an image that does not decode.
    """
    import tensorflow as tf

    image_size, pixels = transform.image_size(line), {}
    for index, image in enumerate(images):
        try:
            pixels[index] = np.frombuffer(transform.pixels(image, line), np.uint8).reshape(image_size, image_size, 3)
        except transform.BadImage:
            continue
    network = tf.keras.models.load_model(keras_file)
    scores = np.asarray(network(np.stack(list(pixels.values())).astype(np.float32), training=False))
    by_index = dict(zip(pixels, scores, strict=True))
    return [by_index.get(index) for index in range(len(images))]


def over_rest(service: client.Client, image: bytes) -> np.ndarray | None:
    """Probabilities for one image as the body of a request; None if the service refuses the image itself.

    Raises client.ServiceError for all other errors.
    """
    try:
        return np.array(service.predict(image)["scores"])
    except client.ServiceError as error:
        if error.status not in (400, 415, 422):
            raise
        return None


def on_device(images: list[bytes], loaded: edge_model.Model) -> tuple[list[np.ndarray | None], np.ndarray]:
    """(probabilities of each image, milliseconds of each image that decodes) by the device's own code."""
    scores: list[np.ndarray | None] = []
    milliseconds = []
    for image in images:
        began = time.perf_counter()
        try:
            scores.append(np.array(edge_model.probabilities(loaded, image)))
        except transform.BadImage:
            scores.append(None)
            continue
        milliseconds.append(1000 * (time.perf_counter() - began))
    return scores, np.array(milliseconds)


def accuracies(arrays: feed.Arrays, edge_folder: str, most: int = 1000) -> dict[str, float]:
    """{variant: accuracy of LiteRT} on pixels of the cache. most: images at most, at even steps."""
    chosen = slice(0, len(arrays), max(1, -(-len(arrays) // most)))
    manifest = edge_model.read_manifest(edge_folder)
    result = {}
    for variant in manifest["variants"]:
        loaded = edge_model.load(edge_folder, variant)
        predicted = [
            loaded.classes.index(
                edge_model.decide(edge_model.invoke(loaded, image.tobytes()), loaded.classes, loaded.threshold)
            )
            for image in arrays.pixels[chosen]
        ]
        result[variant] = float(np.mean(np.array(predicted) == arrays.targets[chosen]))
    return result


def _arrays(scores: Iterable) -> list[np.ndarray | None]:
    return [None if row is None else np.array(row) for row in scores]
