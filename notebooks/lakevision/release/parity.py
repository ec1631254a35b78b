"""Do all the paths that serve a model say the same? The same raw bytes through the training's transform and Keras, MLflow's pyfunc, Spark,
the REST service, and LiteRT on the device's own code."""

import io
import time
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from PIL import Image

from device.model import edge_model, transform
from lakevision.serving.rest import client
from lakevision.serving.spark import score

REFERENCE, EXACT = "Keras", ("pyfunc", "Spark", "REST", "LiteRT float32")  # EXACT: must differ from it by rounding only
VARIANTS = {"float32": "LiteRT float32", "float16": "LiteRT float16", "int8": "LiteRT int8"}


@dataclass
class Parity:
    """scores: {path: list of a float array (classes,) for each image, None where the path refused it}; classes, threshold: the model's; names: of the
    images; images: their bytes; milliseconds: {variant: array, decode + transform + invoke of each image that decodes, one thread}."""

    scores: dict
    classes: tuple
    threshold: float
    names: list
    images: list
    milliseconds: dict = field(default_factory=dict)

    def apart(self, path):
        """Largest difference from Keras' probabilities of each image, float (n,): 0 where both refuse it, infinite where one of them does."""
        return np.array(
            [
                0.0
                if one is None and other is None
                else np.inf
                if one is None or other is None
                else float(np.abs(one - other).max())
                for one, other in zip(self.scores[REFERENCE], self.scores[path])
            ]
        )

    def largest(self, path):
        return float(self.apart(path).max())

    def agreement(self, path):
        """Share of the images that decode on which a path gives the label that Keras gives."""
        same = [
            other is not None and self._label(one) == self._label(other)
            for one, other in zip(self.scores[REFERENCE], self.scores[path])
            if one is not None
        ]
        return float(np.mean(same))

    def _label(self, scores):
        return edge_model.decide(list(scores), self.classes, self.threshold)

    @property
    def exact(self):
        """The largest difference of any path that may differ by rounding only."""
        return max(self.largest(path) for path in self.scores if path in EXACT)


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


def hard(photograph):
    """[(name, bytes)] of what cameras and people send beside plain photographs, made of one of them. Two of them must be refused."""
    image = transform.decode(photograph).convert("RGB")
    image.thumbnail((1600, 1600))  # a PNG of a whole 12 megapixels is more than a request may have

    def saved(changed, kind="JPEG", **options):
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
        )
    )


def compare(spark, held_out, keras_file, model_uri, pyfunc, url, edge_folder):
    """Scores the same bytes on every path. held_out: DataFrame of label, image (bytes, decodable); keras_file: path; model_uri: of the version;
    pyfunc: the same, loaded; url: of its REST service; edge_folder: the version's, with a manifest. Returns Parity."""
    manifest = edge_model.read_manifest(edge_folder)
    named = hard(held_out["image"].iloc[0]) + list(zip(held_out["label"].fillna("no label"), held_out["image"]))
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


def in_keras(images, keras_file, line):
    """Probabilities by the Keras file on pixels of the training's transform: list of float32 (classes,), None for what doesn't decode."""
    import tensorflow as tf

    side, pixels = transform.image_size(line), {}
    for place, image in enumerate(images):
        try:
            pixels[place] = np.frombuffer(transform.pixels(image, line), np.uint8).reshape(side, side, 3)
        except transform.BadImage:
            continue  # its place stays None
    said = np.asarray(
        tf.keras.models.load_model(keras_file)(np.stack(list(pixels.values())).astype(np.float32), training=False)
    )
    found = dict(zip(pixels, said))
    return [found.get(place) for place in range(len(images))]


def over_rest(service, image):
    """Probabilities for one image as the body of a request, None where the service refuses the image itself. Raises client.ServiceError."""
    try:
        return np.array(service.predict(image)["scores"])
    except client.ServiceError as error:
        if error.status not in (400, 415, 422):
            raise
        return None


def on_device(images, loaded):
    """(probabilities, milliseconds of those that decode) by the device's own code. loaded: device.model.Model."""
    scores, milliseconds = [], []
    for image in images:
        began = time.perf_counter()
        try:
            scores.append(np.array(edge_model.probabilities(loaded, image)))
        except transform.BadImage:
            scores.append(None)
            continue
        milliseconds.append(1000 * (time.perf_counter() - began))
    return scores, np.array(milliseconds)


def accuracies(arrays, edge_folder, most=1000):
    """{variant: share right} of LiteRT on pixels of the cache. arrays: feed.Arrays; most: of them, spread."""
    chosen = slice(0, len(arrays), max(1, -(-len(arrays) // most)))
    manifest = edge_model.read_manifest(edge_folder)
    found = {}
    for variant in manifest["variants"]:
        loaded = edge_model.load(edge_folder, variant)
        said = [
            loaded.classes.index(
                edge_model.decide(edge_model.invoke(loaded, image.tobytes()), loaded.classes, loaded.threshold)
            )
            for image in arrays.pixels[chosen]
        ]
        found[variant] = float(np.mean(np.array(said) == arrays.targets[chosen]))
    return found


def _arrays(scores):
    return [None if row is None else np.array(row) for row in scores]
