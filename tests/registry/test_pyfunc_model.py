"""The registered model reads bytes, base64 text and paths, and old registered models still find their imports."""

import base64
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from device.model import transform
from lakevision.registry import pyfunc_model

REPOSITORY = Path(__file__).resolve().parents[2]
OLD_IMPORTS = {
    "transform": 'from device import transform; assert transform.side("decode|rgb|resize(32)") == 32',
    "edge_model": "from device import model as edge_model; "
    'assert edge_model.decide([0.2, 0.8], ["a", "b"], 0.5) == "b"',
}


@pytest.mark.parametrize("code", OLD_IMPORTS.values(), ids=OLD_IMPORTS.keys())
def test_imports_of_models_registered_earlier_work(code):
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(b"photo", id="bytes"),
        pytest.param(bytearray(b"photo"), id="bytearray"),
        pytest.param(memoryview(b"photo"), id="memoryview"),
        pytest.param(base64.b64encode(b"photo").decode(), id="base64"),
    ],
)
def test_as_bytes_reads_bytes_and_base64(image):
    assert pyfunc_model.as_bytes(image) == b"photo"


def test_as_bytes_reads_a_file_but_not_in_a_service(tmp_path, monkeypatch):
    (tmp_path / "a.jpg").write_bytes(b"photo")
    monkeypatch.delenv("MLFLOW_IS_IN_SERVING_ENVIRONMENT", raising=False)
    assert pyfunc_model.as_bytes(tmp_path / "a.jpg") == b"photo"
    with pytest.raises(transform.BadImage, match="b.jpg: No such file"):
        pyfunc_model.as_bytes(tmp_path / "b.jpg")
    monkeypatch.setenv("MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    with pytest.raises(transform.BadImage, match="a service reads no files"):
        pyfunc_model.as_bytes(tmp_path / "a.jpg")


@pytest.mark.parametrize(
    "image, message",
    [
        pytest.param(None, "no image", id="none"),
        pytest.param(5, "expected bytes or base64 text, got int", id="number"),
        pytest.param("a.jpg", "text that is not base64", id="other text"),
    ],
)
def test_as_bytes_refuses_other_values(image, message):
    with pytest.raises(transform.BadImage, match=message):
        pyfunc_model.as_bytes(image)


def test_images_of_prefers_the_image_to_the_path():
    both = pd.DataFrame({"image": [b"photo", None, None], "path": ["a.jpg", "b.jpg", None]})
    assert pyfunc_model.images_of(both) == [b"photo", Path("b.jpg"), None]
    assert pyfunc_model.images_of(both[["path"]]) == [Path("a.jpg"), Path("b.jpg"), None]
    assert pyfunc_model.images_of([b"photo"]) == [b"photo"]


def test_bad_image_spoils_only_its_own_row():
    from device.simulation import porch

    class Network:
        def serve(self, array):
            assert array.shape == (1, 32, 32, 3) and array.dtype == np.float32
            return self

        def numpy(self):
            return np.array([[0.25, 0.75]], np.float32)

    model = pyfunc_model.PhotoModel()
    model.card = {"transform": "decode|upright|rgb|resize(32)", "classes": ["a", "b"], "threshold": 0.5}
    model.loaded = Network()
    answers = model.predict(None, pd.DataFrame({"image": [b"bad", porch.jpeg(porch.plan(1)[0])]}))
    assert answers["label"].tolist() == [None, "b"] and answers["scores"][1] == [0.25, 0.75]
    assert answers["error"][0].startswith("not an image") and answers["error"][1] is None
