"""The networks: shapes, and the names that the settings know."""

import keras
import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.platform import config
from lakevision.training import backbone, loop, networks

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


@pytest.mark.parametrize(
    "name, classes, side",
    [
        ("small_cnn", 2, 32),
        ("mobilenet_v2", 2, 32),
        ("small_cnn", 5, 40),
        *((name, 5, 40) for name in backbone.BACKBONES),
    ],
)
def test_each_network_maps_pixels_to_probabilities(name, classes, side):
    network = networks.build(name, side, classes, width=4, dropout=0.1, seed=1)
    assert network.input_shape == (None, side, side, 3) and network.layers[-1].output.shape == (None, classes)
    pixels = photographs(6, classes, side).pixels
    settle(network, pixels)
    probabilities = loop.predict(network, pixels)
    assert probabilities.dtype == np.float32 and probabilities.sum(1) == pytest.approx(np.ones(6), abs=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0.1


def test_each_network_is_a_choice_of_the_setting():
    for name in (*networks.MODELS, *backbone.BACKBONES):
        assert config.load("local", [f"training.model={name}"]).training.model == name
    with pytest.raises(config.ConfigError, match="training.model must be one of"):
        config.load("local", ["training.model=vgg"])
