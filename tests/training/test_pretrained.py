"""Pretrained weights: files, downloads, and everything that can be wrong with them."""

import functools
import http.server
import threading
from dataclasses import replace

import keras
import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.training import backbone, loop

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


@pytest.mark.parametrize("kind", ["keras", "weights.h5", "h5"])
def test_weights_load_from_a_file(weights, kind):
    pixels = photographs().pixels
    expected = backbone.features(backbone.build("mobilenet_v2", SIDE, weights["keras"]), pixels)
    setting = replace(SETTING, weights=backbone.located("mobilenet_v2", weights[kind]))
    assert np.array_equal(backbone.features(setting, pixels), expected)


def test_weights_load_from_own_model_at_another_side(weights, tmp_path):
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


def test_failed_download_names_the_remedy(serve):
    serve(None)
    with pytest.raises(
        backbone.BadWeights,
        match="training.weights: imagenet.*_no_top.h5.*404.*training.weights=<path>.*training.weights=none",
    ):
        backbone.build("mobilenet_v2", 96, "imagenet")


def test_incomplete_download_is_named(weights, serve, tmp_path):
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
def test_missing_weights_file_is_named(text, message):
    with pytest.raises(backbone.BadWeights, match=message):
        backbone.located("mobilenet_v2", text)
    assert backbone.located("small_cnn", text) == "none"


@pytest.mark.parametrize("name", ["other.keras", "other.weights.h5", "text.keras", "text.weights.h5", "text.h5"])
def test_file_with_other_content_is_refused(tmp_path, name):
    path = tmp_path / name
    if name.startswith("text"):
        path.write_text("no weights")
    else:
        other = keras.applications.MobileNetV3Small(weights=None, include_top=False, input_shape=(SIDE, SIDE, 3))
        other.save(path) if name.endswith(".keras") else other.save_weights(path)
    with pytest.raises(backbone.BadWeights, match=f"training.weights: .*{name}"):
        backbone.build("mobilenet_v2", SIDE, str(path))


@pytest.fixture
def serve(tmp_path, monkeypatch):
    """Puts a server on loopback in the place of Keras' own: (file or None for 404) -> list of the paths that were
    asked for.
    """
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
