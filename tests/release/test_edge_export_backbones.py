"""Backbones on the device: LiteRT agrees with Keras, and failed conversions show why."""

import keras
import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.release import edge_export
from lakevision.training import loop, networks

SIDE = 48


def photographs(count=24, classes=3, side=SIDE):
    """Arrays of noise in which a bright square says the class."""
    rng = np.random.default_rng(count)
    targets = np.arange(count, dtype=np.int32) % classes
    pixels = rng.integers(0, 80, (count, side, side, 3), dtype=np.uint8)
    for image, target in zip(pixels, targets):
        image[8 * target : 8 * target + 12, :, target % 3] = 250
    return feed.Arrays(pixels, targets, [f"{number:064x}" for number in range(count)])


def settle(network, images):
    """Gives batch normalisation the averages that training would: with those of a new network a deep one says the
    same of every image.
    """
    normalisations = [
        layer for layer in network._flatten_layers() if isinstance(layer, keras.layers.BatchNormalization)
    ]
    for layer in normalisations:
        layer.usual, layer.momentum = layer.momentum, 0.0
    network(images.astype(np.float32), training=True)
    for layer in normalisations:
        layer.momentum = layer.usual


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, tolerance",
    [
        ("small_cnn", 1e-5),
        (
            "mobilenet_v2",
            5e-5,
        ),  # one drawn at random makes of one rounding in the first of its 52 layers 200 in the last
    ],
)
def test_litert_agrees_with_keras(name, tolerance, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    network = networks.build(name, 96, 3, width=16, dropout=0.1, seed=2)
    pixels = photographs(8, 3, 96).pixels
    settle(network, pixels)
    assert np.ptp(loop.predict(network, pixels), axis=0).max() > 0.1
    network.export(str(tmp_path / "saved"))
    edge_export.export(tmp_path / "saved", pixels, tmp_path / "edge")
    interpreter = Interpreter(model_path=str(tmp_path / "edge" / "float32.tflite"))
    interpreter.allocate_tensors()
    given, said = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    assert tuple(given["shape"]) == (1, 96, 96, 3) and given["dtype"] == np.float32
    network.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for image in pixels.astype(np.float32):
        interpreter.set_tensor(given["index"], image[None])
        interpreter.invoke()
        assert (
            np.abs(interpreter.get_tensor(said["index"]) - np.asarray(network(image[None], training=False))).max()
            < tolerance
        )
        assert np.array_equal(loaded(image[None], training=False), network(image[None], training=False))


def test_failed_conversion_shows_the_converters_message(tmp_path):
    (tmp_path / "saved").mkdir()
    with pytest.raises(edge_export.CannotConvert, match="exit status 1 converting .*saved(.|\n)*saved_model.pb"):
        edge_export.export(tmp_path / "saved", photographs(2, 3, 96).pixels, tmp_path / "edge")
    assert not list((tmp_path / "edge").iterdir())
