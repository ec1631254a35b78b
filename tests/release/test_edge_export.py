"""Conversion of a SavedModel to LiteRT: three variants with the digests and inputs that their manifest entries
state.
"""

import hashlib

import numpy as np
import pytest

from lakevision.release import edge_export

pytestmark = pytest.mark.slow


def test_variants_match_their_manifest_entries(tmp_path):
    import keras
    from ai_edge_litert.interpreter import Interpreter

    inputs = keras.Input((16, 16, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(4, 3)(keras.layers.Rescaling(1 / 255)(inputs)))
    network = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled))
    network.export(str(tmp_path / "saved"))
    images = np.random.default_rng(1).integers(0, 256, (20, 16, 16, 3), dtype=np.uint8)
    variants = edge_export.export(tmp_path / "saved", images, tmp_path / "edge")
    assert set(variants) == set(edge_export.VARIANTS)
    assert {path.name for path in (tmp_path / "edge").iterdir()} == {entry["file"] for entry in variants.values()}
    for variant, entry in variants.items():
        data = (tmp_path / "edge" / entry["file"]).read_bytes()
        assert (entry["bytes"], entry["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
        detail = Interpreter(model_content=data).get_input_details()[0]
        assert np.dtype(detail["dtype"]).name == entry["input"] == edge_export.VARIANTS[variant][0]


def test_failed_conversion_names_the_model_and_the_reason(tmp_path):
    (tmp_path / "saved").mkdir()
    with pytest.raises(edge_export.CannotConvert, match="exit status 1 converting .*saved(.|\n)*saved_model.pb"):
        edge_export.export(tmp_path / "saved", np.zeros((1, 8, 8, 3), np.uint8), tmp_path / "edge")
