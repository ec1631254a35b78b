"""Backbones: frozen features, the head, and fine-tuning."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from lakevision.dataset import cache, feed
from lakevision.training import backbone, loop, networks

SIDE = 48


SETTING = loop.Setting(
    "mobilenet_v2", SIDE, 3, epochs=3, batch_size=8, learning_rate=0.003, dropout=0.1, width=16, augment=True, seed=3
)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Files of one backbone's weights, in each form that they come in, and the features of `photographs` by it."""
    folder = tmp_path_factory.mktemp("weights")
    keras.utils.set_random_seed(1)
    network = keras.applications.MobileNetV2(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
    settle(network, photographs().pixels / 127.5 - 1)
    files = {
        "keras": folder / "network.keras",
        "weights.h5": folder / "network.weights.h5",
        "h5": folder / "network.h5",
    }
    network.save(files["keras"])
    network.save_weights(files["weights.h5"])
    network.save(files["h5"])
    return {kind: str(path) for kind, path in files.items()}


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


def test_pixels_are_scaled_inside_the_network(weights):
    base = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    network = keras.models.load_model(weights["keras"])
    pixels = photographs().pixels
    inner = np.asarray(
        network(keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32)), training=False)
    )
    expected = np.concatenate([inner.max((1, 2)), inner.mean((1, 2))], 1)
    made = backbone.features(base, pixels)
    assert expected.max() > 1 and np.abs(made - expected).max() < 1e-3


def test_too_small_side_is_refused():
    with pytest.raises(backbone.BadWeights, match="mobilenet_v2 needs 32 px or more, training.transform makes 16"):
        backbone.build("mobilenet_v2", 16)


@pytest.mark.slow
def test_head_trains_first_then_the_last_layers(weights):
    """Frozen: nothing of the backbone moves.

    Fine-tuned: the last layers move, no others, and no batch normalisation at all.
    """
    setting = replace(SETTING, weights=weights["keras"], fine_tune_epochs=1, fine_tune_layers=20)
    before = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    epochs = []
    placements = photographs(), photographs(12)
    head_only = loop.fit(*placements, replace(setting, fine_tune_epochs=0))
    tuned = loop.fit(*placements, setting, on_epoch=lambda epoch, figures: epochs.append(epoch))
    count = len(before.get_weights())
    assert all(np.array_equal(one, two) for one, two in zip(head_only.weights[:count], before.get_weights()))
    assert epochs == [0, 1, 2, 3] and len(tuned.history) == 4 and tuned.history[:3] == head_only.history

    paths = [weight.path for weight in before.weights]
    moved = {path for path, one, two in zip(paths, tuned.weights, before.get_weights()) if not np.array_equal(one, two)}
    network = next(layer for layer in before.layers if isinstance(layer, keras.Model))
    last = {
        weight.path
        for layer in network.layers[-20:]
        if not isinstance(layer, keras.layers.BatchNormalization)
        for weight in layer.weights
    }
    assert moved == last and len(last) >= 4
    assert loop.fit(*placements, setting).digest == tuned.digest


def test_frozen_backbone_stays_in_inference_mode(weights):
    """Keras hands training=True on to every layer, whatever a functional model was called with."""
    base = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    backbone.thaw(base, 20)
    batch = photographs().pixels.astype(np.float32)
    assert np.array_equal(base(batch, training=True), base(batch, training=False))
    scratch = backbone.build("mobilenet_v2", SIDE)
    assert not np.allclose(scratch(batch, training=True), scratch(batch, training=False))


def test_joined_network_equals_head_on_features(weights):
    setting = replace(SETTING, weights=weights["keras"])
    arrays = photographs()
    made = [replace(arrays, pixels=backbone.features(setting, arrays.pixels))] * 2
    top, _ = backbone.fit_head(
        *made,
        setting,
        lambda one, two, own, network, on_epoch: loop.fit(one, two, own, on_epoch=on_epoch, network=network),
    )
    result = loop.fit(arrays, arrays, setting, features_of=made)
    whole = loop.predict(loop.with_weights(setting, result.weights), arrays.pixels)
    assert np.abs(whole - np.asarray(top(made[0].pixels))).max() < 1e-5
    assert result.history[-1]["loss"] < result.history[0]["loss"]


@pytest.mark.slow
def test_weights_none_trains_the_whole_network():
    placements = photographs(8), photographs(8)
    start = networks.build("mobilenet_v2", SIDE, 3, 16, 0.1, seed=3)
    trained = loop.fit(*placements, replace(SETTING, epochs=1))
    paths = [weight.path for weight in start.weights]
    still = [path for path, one, two in zip(paths, trained.weights, start.get_weights()) if np.array_equal(one, two)]
    assert not still


@pytest.mark.slow
def test_swapped_photographs_pass_the_whole_network(weights):
    from lakevision.dataset.object_region import Region

    setting = replace(SETTING, weights=weights["keras"], epochs=1, swap=0.5, region=Region((0, 0.5, 1, 1), "config"))
    trained = loop.fit(photographs(), photographs(12), setting)
    before = backbone.build("mobilenet_v2", SIDE, weights["keras"]).get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(trained.weights, before)) and np.isfinite(
        trained.history[0]["loss"]
    )


def test_features_are_computed_once(weights, tmp_path, monkeypatch):
    arrays = photographs()
    reads = []
    monkeypatch.setattr(feed, "load", lambda cached, side: reads.append(side) or arrays)
    built = cache.Cache(str(tmp_path), ("a", "b", "c"), {"train": 24}, f"decode|upright|rgb|resize({SIDE})", 1, {}, {})
    setting = replace(SETTING, weights=weights["weights.h5"])
    first = backbone.kept(built, setting, "train")
    assert backbone.kept(built, replace(setting, dropout=0.5), "train") is first  # of this process
    backbone._kept.clear()
    found = backbone.kept(built, setting, "train")  # another process finds the files
    assert (
        reads == ["train"]
        and np.array_equal(found.pixels, first.pixels)
        and found.keys == arrays.keys
        and found.targets.dtype == np.int32
    )
    assert np.array_equal(found.pixels, backbone.features(setting, arrays.pixels)) and not list(
        tmp_path.rglob("*.part")
    )
    other = replace(setting, weights=weights["keras"])
    backbone.kept(built, other, "train")
    assert reads == ["train", "train"] and backbone.source(setting) != backbone.source(other)
