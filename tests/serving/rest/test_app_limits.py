"""Limits of the REST service's tables and images: time and memory stay small for any request."""

import base64
import json
import time

import pytest
from PIL import Image
from rest_service import GOOD, LIMITS, encoded, peak

SETTINGS = LIMITS

pytestmark = pytest.mark.service


def table(shape, rows):
    return json.dumps(
        {
            "inputs": {"inputs": rows},
            "inputs by name": {"inputs": {"image": rows}},
            "instances": {"instances": rows},
            "instances by name": {"instances": [{"image": row} for row in rows]},
            "dataframe_split": {
                "dataframe_split": {
                    "columns": ["image"],
                    "index": list(range(len(rows))),
                    "data": [[row] for row in rows],
                }
            },
            "dataframe_records": {"dataframe_records": [{"image": row} for row in rows]},
        }[shape]
    )


SHAPES = ["inputs", "inputs by name", "instances", "instances by name", "dataframe_split", "dataframe_records"]


@pytest.mark.parametrize("shape", SHAPES)
def test_table_above_max_rows_is_refused(service, shape):
    status, found, _ = service.ask(table(shape, [0] * 100), "application/json")
    assert status == 200 and len(found["predictions"]) == 100
    status, found, _ = service.ask(table(shape, [0] * 101), "application/json")
    assert status == 400 and "serve.max_rows, 100," in found["message"]


@pytest.mark.parametrize(
    "body, kind",
    [
        (b'{"inputs":[' + b"0," * 1_450_000 + b"0]}", "application/json"),
        (b"image\n" + b"0\n" * 1_000_000, "text/csv"),
        (b"image" + b"," * 1_000_000 + b"\n0\n", "text/csv"),
    ],
    ids=["JSON", "CSV", "CSV, columns"],
)
def test_a_million_rows_are_refused_without_parsing(service, body, kind):
    before, began = peak(service), time.monotonic()
    status, found, _ = service.ask(body, kind)
    assert status == 400 and "serve.max_rows" in found["message"]
    assert time.monotonic() - began < 2 and peak(service) - before < 60


@pytest.mark.parametrize("shape", SHAPES)
def test_short_texts_beside_a_long_text_need_little_memory(service, shape):
    before = peak(service)
    status, found, _ = service.ask(
        table(shape, ["A" * 2_500_000] + [base64.b64encode(GOOD["grey"]).decode()] + [""] * 98), "application/json"
    )
    assert status == 200 and [row["error"] is None for row in found["predictions"][:3]] == [False, True, False]
    assert peak(service) - before < 150  # NumPy would take 1,000


def test_inputs_spelt_with_escapes_need_little_memory(service):
    before = peak(service)
    body = table("inputs", ["A" * 2_500_000] + [""] * 99).replace("inputs", "\\u0069nputs")
    assert service.ask(body, "application/json")[0] == 200 and peak(service) - before < 150


def test_image_above_max_megapixels_is_refused_by_its_header(service):
    before = peak(service)
    bomb = encoded(Image.new("LA", (10_000, 10_000)), "PNG")
    status, found, _ = service.ask(bomb, "image/png")
    assert status == 422 and found["message"] == "too large: 100.0 megapixels; serve.max_megapixels is 4"
    whole = encoded(Image.new("RGB", (2000, 2000), "red"))
    rows = [
        base64.b64encode(image).decode()
        for image in (GOOD["jpeg"], bomb, whole, encoded(Image.new("RGB", (2001, 2000))))
    ]
    status, found, _ = service.ask(table("dataframe_split", rows), "application/json")
    assert status == 200 and [row["error"] for row in found["predictions"]] == [
        None,
        "too large: 100.0 megapixels; serve.max_megapixels is 4",
        None,
        "too large: 4.0 megapixels; serve.max_megapixels is 4",
    ]
    assert peak(service) - before < 150 and "Warning" not in service.log()
