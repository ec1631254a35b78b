"""Networks from scratch and with a backbone: what they take and give, what is frozen, what is kept, and what the device makes of them.

No weights of others are at hand here: what stands for them is a backbone drawn at random and saved, in each of the forms that weights come in.
"""

import functools
import http.server
import threading
from dataclasses import replace

import keras
import numpy as np
import pytest

from lakevision.dataset import cache, feed
from lakevision.platform import config
from lakevision.release import edge_export
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
    """Gives batch normalisation the averages that training would: with those of a new network a deep one says the same of every image."""
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
def test_every_network_takes_plain_pixels_and_gives_probabilities(name, classes, side):
    network = networks.build(name, side, classes, width=4, dropout=0.1, seed=1)
    assert network.input_shape == (None, side, side, 3) and network.layers[-1].output.shape == (None, classes)
    pixels = photographs(6, classes, side).pixels
    settle(network, pixels)
    probabilities = loop.predict(network, pixels)
    assert probabilities.dtype == np.float32 and probabilities.sum(1) == pytest.approx(np.ones(6), abs=1e-5)
    assert np.ptp(probabilities, axis=0).max() > 0.1


def test_every_network_can_be_named_in_the_configuration():
    for name in (*networks.MODELS, *backbone.BACKBONES):
        assert config.load("local", [f"training.model={name}"]).training.model == name
    with pytest.raises(config.ConfigError, match="training.model must be one of"):
        config.load("local", ["training.model=vgg"])


def test_pixels_are_scaled_inside_as_the_weights_expect(weights):
    base = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    network = keras.models.load_model(weights["keras"])
    pixels = photographs().pixels
    inner = np.asarray(
        network(keras.applications.mobilenet_v2.preprocess_input(pixels.astype(np.float32)), training=False)
    )
    expected = np.concatenate([inner.max((1, 2)), inner.mean((1, 2))], 1)
    made = backbone.features(base, pixels)
    assert expected.max() > 1 and np.abs(made - expected).max() < 1e-3


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "h5"])
def test_weights_come_from_a_file(weights, kind):
    pixels = photographs().pixels
    expected = backbone.features(backbone.build("mobilenet_v2", SIDE, weights["keras"]), pixels)
    setting = replace(SETTING, weights=backbone.located("mobilenet_v2", weights[kind]))
    assert np.array_equal(backbone.features(setting, pixels), expected)


def test_weights_come_from_a_model_of_ours_at_another_side(weights, tmp_path):
    base = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    backbone.joined(base, backbone.head(base.output_shape[-1], 2, 0.1, 1)).save(tmp_path / "model.keras")
    other = backbone.build("mobilenet_v2", 64, str(tmp_path / "model.keras"))
    assert all(np.array_equal(one, two) for one, two in zip(base.get_weights(), other.get_weights()))


@pytest.mark.parametrize("side", [96, 100], ids=["a side that Keras has weights for", "another side"])
def test_imagenet_weights_are_fetched_once(weights, side, serve):
    asked = serve(weights["h5"])
    base = backbone.build("mobilenet_v2", side, "imagenet")
    again = backbone.build("mobilenet_v2", side, "imagenet")
    assert len(asked) == 1 and f"1.0_{side if side == 96 else 224}_no_top.h5" in asked[0]
    expected = backbone.build("mobilenet_v2", side, weights["keras"]).get_weights()
    for made in base, again:
        assert all(np.array_equal(one, two) for one, two in zip(made.get_weights(), expected))


def test_a_download_that_fails_says_what_to_do(serve):
    serve(None)
    with pytest.raises(
        backbone.BadWeights,
        match="training.weights: imagenet.*_no_top.h5.*404.*training.weights=<path>.*training.weights=none",
    ):
        backbone.build("mobilenet_v2", 96, "imagenet")


def test_half_a_download_says_so(weights, serve, tmp_path):
    half = tmp_path / "half.h5"
    with open(weights["h5"], "rb") as file:
        half.write_bytes(file.read(20000))
    serve(str(half))
    with pytest.raises(backbone.BadWeights, match="half a file: delete it"):
        backbone.build("mobilenet_v2", 96, "imagenet")


@pytest.mark.parametrize(
    "text, message",
    [
        pytest.param(
            "/no/such/file.h5", "training.weights: /no/such/file.h5 is not a file; expected imagenet, none", id="absent"
        ),
        pytest.param("no/such/file.h5", r"training.weights: /.*/no/such/file.h5 is not a file", id="relative"),
    ],
)
def test_a_file_of_weights_that_is_not_there(text, message):
    with pytest.raises(backbone.BadWeights, match=message):
        backbone.located("mobilenet_v2", text)
    assert backbone.located("small_cnn", text) == "none"


@pytest.mark.parametrize("name", ["other.keras", "other.weights.h5", "text.keras", "text.weights.h5", "text.h5"])
def test_a_file_that_holds_something_else(tmp_path, name):
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no weights")
    else:
        other = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
        other.save(path) if name.endswith(".keras") else other.save_weights(path)
    with pytest.raises(backbone.BadWeights, match=f"training.weights: .*{name}"):
        backbone.build("mobilenet_v2", SIDE, str(path))


def test_a_side_that_is_too_small_is_said():
    with pytest.raises(backbone.BadWeights, match="mobilenet_v2 needs 32 px or more, training.transform makes 16"):
        backbone.build("mobilenet_v2", 16)


def test_frozen_then_fine_tuned(weights):
    """Frozen: nothing of the backbone moves. Fine-tuned: the last layers move, no others, and no batch normalisation at all."""
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


def test_a_frozen_backbone_stays_in_inference_mode_when_it_is_trained(weights):
    """Keras hands training=True on to every layer, whatever a functional model was called with."""
    base = backbone.build("mobilenet_v2", SIDE, weights["keras"])
    backbone.thaw(base, 20)
    batch = photographs().pixels.astype(np.float32)
    assert np.array_equal(base(batch, training=True), base(batch, training=False))
    scratch = backbone.build("mobilenet_v2", SIDE)
    assert not np.allclose(scratch(batch, training=True), scratch(batch, training=False))


def test_the_joined_network_says_what_the_head_said_of_the_features(weights):
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


def test_from_scratch_all_of_it_is_trained():
    placements = photographs(8), photographs(8)
    start = networks.build("mobilenet_v2", SIDE, 3, 16, 0.1, seed=3)
    trained = loop.fit(*placements, replace(SETTING, epochs=1))
    paths = [weight.path for weight in start.weights]
    still = [path for path, one, two in zip(paths, trained.weights, start.get_weights()) if np.array_equal(one, two)]
    assert not still


def test_swapped_photographs_go_through_the_whole_frozen_network(weights):
    from lakevision.dataset.object_region import Region

    setting = replace(SETTING, weights=weights["keras"], epochs=1, swap=0.5, region=Region((0, 0.5, 1, 1), "config"))
    trained = loop.fit(photographs(), photographs(12), setting)
    before = backbone.build("mobilenet_v2", SIDE, weights["keras"]).get_weights()
    assert all(np.array_equal(one, two) for one, two in zip(trained.weights, before)) and np.isfinite(
        trained.history[0]["loss"]
    )


def test_features_are_computed_once_and_found_again(weights, tmp_path, monkeypatch):
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
def test_the_device_says_the_same(name, tolerance, tmp_path):
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


def test_what_can_not_be_converted_is_said_with_what_the_converter_says(tmp_path):
    (tmp_path / "saved").mkdir()
    with pytest.raises(edge_export.CannotConvert, match="exit status 1 converting .*saved(.|\n)*saved_model.pb"):
        edge_export.export(tmp_path / "saved", photographs(2, 3, 96).pixels, tmp_path / "edge")
    assert not list((tmp_path / "edge").iterdir())


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Puts a server on loopback in the place of Keras' own: (file or None for 404) -> list of the paths that were asked for."""
    from keras.src.applications import mobilenet_v2
    from keras.src.backend import config as keras_config

    running = []

    def start(path):
        asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                asked.append(self.path)
                if path is None:
                    return self.send_error(404)
                with open(path, "rb") as file:
                    data = file.read()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                """Says nothing: the test looks at `asked`."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=functools.partial(server.serve_forever, poll_interval=0.05), daemon=True).start()
        running.append(server)
        monkeypatch.setattr(mobilenet_v2, "BASE_WEIGHT_PATH", f"http://127.0.0.1:{server.server_port}/")
        monkeypatch.setattr(keras_config, "_KERAS_DIR", str(tmp_path / "home"))
        monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
        return asked

    yield start
    for server in running:
        server.shutdown()
        server.server_close()
