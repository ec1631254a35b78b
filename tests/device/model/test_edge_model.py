"""An edge model is loaded only if manifest, digest and tensors agree."""

import json
from pathlib import Path

import bundles
import pytest

from device.model import edge_model


@pytest.fixture
def place(models, tmp_path):
    """A published folder with version 1 of the good model."""
    bundles.publish(models, tmp_path / "edge", "1")
    return tmp_path / "edge"


def photograph(folder):
    golden = edge_model.read_manifest(folder)["golden"][0]
    return Path(folder, golden["file"]).read_bytes(), golden["scores"]


def test_loaded_model_gives_the_golden_scores(place):
    folder = edge_model.folder(place, "champion")
    data, scores = photograph(folder)
    for variant, expected in scores.items():
        model = edge_model.load(folder, variant)
        assert edge_model.probabilities(model, data) == pytest.approx(expected, abs=1e-6)
        assert (model.version, model.classes) == ("1", ("empty", "package"))


@pytest.mark.parametrize(
    "spoil, message",
    [
        pytest.param(
            lambda file: file.write_bytes(file.read_bytes()[:-1]), "bytes, not those of the manifest", id="cut"
        ),
        pytest.param(
            lambda file: file.write_bytes(bytes([file.read_bytes()[0] ^ 1]) + file.read_bytes()[1:]),
            "not those of the manifest",
            id="flipped bit",
        ),
        pytest.param(lambda file: file.unlink(), "No such file", id="missing"),
    ],
)
def test_spoilt_file_is_refused(place, spoil, message):
    folder = edge_model.folder(place, "champion")
    spoil(Path(folder, "float32.tflite"))
    with pytest.raises(edge_model.BadModel, match=message):
        edge_model.load(folder, "float32")


def test_changed_manifest_is_not_the_pointers(place):
    manifest = Path(edge_model.folder(place, "champion"), "manifest.json")
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "threshold": 0.1}))
    with pytest.raises(edge_model.BadModel, match="not the manifest that .*champion.json names"):
        edge_model.folder(place, "champion")


@pytest.mark.parametrize("target", ["../elsewhere", "/etc", 7], ids=["above", "absolute", "number"])
def test_pointer_cannot_leave_the_folder(place, target):
    pointer = place / "champion.json"
    pointer.write_text(json.dumps({**json.loads(pointer.read_text()), "folder": target}))
    with pytest.raises(edge_model.BadModel, match="names no folder below"):
        edge_model.folder(place, "champion")


def test_unknown_variant_names_the_known_ones(place):
    with pytest.raises(edge_model.BadModel, match="no variant 'int4'; there are float32"):
        edge_model.load(edge_model.folder(place, "champion"), "int4")


@pytest.mark.parametrize(
    "scores, classes, threshold, label",
    [
        pytest.param([0.4, 0.6], ("a", "b"), 0.5, "b", id="second of two"),
        pytest.param([0.4, 0.6], ("a", "b"), 0.7, "a", id="below the threshold"),
        pytest.param([0.5, 0.5], ("a", "b"), 0.5, "b", id="at the threshold"),
        pytest.param([0.2, 0.5, 0.3], ("a", "b", "c"), 0.9, "b", id="likeliest of three"),
    ],
)
def test_label_follows_threshold_or_likeliest(scores, classes, threshold, label):
    assert edge_model.decide(scores, classes, threshold) == label
