"""Loading a version for the REST service, and the conversions between requests, rows and JSON."""

import json

import numpy as np
import pandas as pd
import pytest
from rest_service import GOOD, SECRET, expected, same

from lakevision.platform import config
from lakevision.serving.rest import loaded_model


def test_version_is_found_by_alias_and_number_and_loads(registered, tmp_path):
    cfg, models = registered
    champion = loaded_model.find(cfg, str(tmp_path))
    second = loaded_model.find(cfg, str(tmp_path), "", "2")
    assert (champion.number, champion.alias, second.number, second.alias) == ("1", "champion", "2", "")
    assert champion.folder != second.folder
    loaded = loaded_model.load(second, max_rows=5)
    (row,) = loaded_model.answers(loaded.rows([GOOD["jpeg"]]))
    assert same(row, expected(models["2"], GOOD["jpeg"])) and loaded.info["version"] == loaded.number == "2"


@pytest.mark.parametrize("alias, number", [("challenger", ""), ("", "99")], ids=["alias", "number"])
def test_missing_version_is_not_servable(registered, tmp_path, alias, number):
    with pytest.raises(loaded_model.NotServable, match="lakevision"):
        loaded_model.find(registered[0], str(tmp_path), alias, number)
    assert not any(path for folder in tmp_path.iterdir() for path in folder.iterdir())


@pytest.mark.parametrize(
    "data",
    [["a"], {"image": ["a"]}, pd.DataFrame({"image": ["a"]}), np.array(["a"]), pd.Series(["a"])],
    ids=["list", "dict", "table", "array", "series"],
)
def test_images_are_taken_from_tables_and_lists(data):
    assert loaded_model.images(data) == ["a"] and type(loaded_model.images(data)[0]) is str


@pytest.mark.parametrize(
    "data, message",
    [
        (SECRET, "got one text"),
        (7, "got int"),
        ({"image": SECRET}, "got one text"),
        ({SECRET: ["a"]}, "got 1 of them with other names"),
        (pd.DataFrame({"image": ["a"], SECRET: ["b"]}), "got 2 of them$"),
        (np.array(7), "got ndarray"),
    ],
    ids=["text", "number", "text by name", "other name", "two columns", "array without dimensions"],
)
def test_data_without_images_is_bad_input_and_not_quoted(data, message):
    with pytest.raises(loaded_model.BadInput, match=message) as refused:
        loaded_model.images(data)
    assert SECRET not in str(refused.value)


def test_row_with_nan_becomes_an_error():
    good, bad = loaded_model.answers([("a", 0.9, [0.9, 0.1], None), ("a", float("nan"), [float("nan"), 0.1], None)])
    assert good == {"label": "a", "probability": 0.9, "scores": [0.9, 0.1], "error": None}
    assert bad["error"] == "the model gave no number for this image" and bad["label"] is bad["scores"] is None


@pytest.mark.parametrize(
    "error, message",
    [
        ("not an image: starts with b'secret'", "not an image"),
        ('damaged JPEG (b"it\'s secret")', "damaged JPEG"),
        (
            "too large: Image size (100000000 pixels) exceeds limit of 4000000 pixels, could be a bomb",
            "too large: 100.0 megapixels; serve.max_megapixels is 4",
        ),
        ("truncated", "truncated"),
    ],
    ids=["first bytes", "bytes in brackets", "Pillow's limit", "no bytes"],
)
def test_error_for_the_client_holds_no_image_bytes(error, message):
    assert loaded_model.discreet(error) == message


def test_failure_is_logged_with_its_place_not_its_message(caplog):
    try:
        json.loads("[")
    except ValueError as error:
        error.args = (SECRET,)
        loaded_model.log_failure(error)
    assert "a request failed: JSONDecodeError at decoder.py:" in caplog.text and SECRET not in caplog.text


def test_default_pixel_limit_admits_64_megapixel_cameras():
    assert config.load().serve.max_megapixels * 1_000_000 >= 9248 * 6944


def test_path_column_is_read_in_process_but_not_in_a_service(registered, tmp_path, monkeypatch):
    model = registered[1]["1"]
    (tmp_path / "photo.jpg").write_bytes(GOOD["jpeg"])
    given = pd.DataFrame(
        {
            "image": [None, GOOD["jpeg"], None, None],
            "path": [str(tmp_path / "photo.jpg"), None, str(tmp_path / "none.jpg"), None],
        }
    )
    monkeypatch.delenv("MLFLOW_IS_IN_SERVING_ENVIRONMENT", raising=False)
    found = model.predict(given)
    assert found["scores"][0] == found["scores"][1] and found["error"][:2].isna().all()
    assert "No such file" in found["error"][2] and found["error"][3] == "no image"
    monkeypatch.setenv("MLFLOW_IS_IN_SERVING_ENVIRONMENT", "true")
    refused = model.predict(given)
    assert (
        refused["label"][0] is None
        and refused["error"][0] == "a service reads no files: send the image"
        and refused["error"][1] is None
    )
