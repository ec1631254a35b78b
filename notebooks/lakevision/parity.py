"""Do all the paths that serve a model say the same? The same raw image bytes through Keras, MLflow's pyfunc and LiteRT."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from device import model as edge_model
from device import transform


@dataclass
class Parity:
    """scores: {path: float array (n, classes)}; largest: of the float32 paths' differences from Keras; int8_agreement: share of equal labels."""

    scores: dict
    largest: float
    int8_agreement: float


def compare(images, saved_model, pyfunc, edge_folder, card):
    """Scores images (list of bytes, all decodable) on every path. saved_model: folder; pyfunc: loaded from the registry. Returns Parity."""
    import tensorflow as tf

    side = transform.side(card["transform"])
    pixels = [transform.pixels(image, card["transform"]) for image in images]
    array = np.frombuffer(b"".join(pixels), np.uint8).reshape(-1, side, side, 3).astype(np.float32)
    keras_model = tf.keras.models.load_model(saved_model)
    answered = pyfunc.predict(pd.DataFrame({"image": images}))
    if answered["error"].notna().any():
        raise ValueError(f"the registered model refuses images that the transform takes: {answered['error'].dropna().iloc[0]}")
    scores = {"Keras": np.asarray(keras_model(array, training=False)), "pyfunc": np.array(answered["scores"].tolist())}
    for variant, path in (("float32", "LiteRT float32"), ("int8", "LiteRT int8")):
        loaded = edge_model.load(edge_folder, variant)
        scores[path] = np.array([edge_model.probabilities(loaded, image) for image in images])
    largest = max(float(np.abs(scores[path] - scores["Keras"]).max()) for path in ("pyfunc", "LiteRT float32"))
    labels = {path: [edge_model.decide(list(row), card["classes"], card["threshold"]) for row in values] for path, values in scores.items()}
    agreement = float(np.mean([a == b for a, b in zip(labels["Keras"], labels["LiteRT int8"])]))
    return Parity(scores, largest, agreement)
