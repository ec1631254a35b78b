"""The REST service's responses, from real processes on loopback: images, tables, errors and routes."""

import base64
import json
import os
import socket

import pytest
from rest_service import BAD, GOOD, LINE, SECRET, expected, same

from lakevision.registry import model_registry

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "image/x-anything", "application/octet-stream", "IMAGE/JPEG; q=1"]
)
@pytest.mark.parametrize("name", GOOD)
def test_image_body_gets_the_prediction_of_the_model(service, registered, name, kind):
    status, found, _ = service.ask(GOOD[name], kind)
    assert (
        status == 200
        and len(found["predictions"]) == 1
        and same(found["predictions"][0], expected(registered[1]["1"], GOOD[name]))
    )


def as_table(shape, images):
    """MLflow's JSON for images, in one of its formats."""
    texts = [base64.b64encode(image).decode() for image in images]
    return json.dumps(
        {
            "dataframe_split": {"dataframe_split": {"columns": ["image"], "data": [[text] for text in texts]}},
            "dataframe_records": {"dataframe_records": [{"image": text} for text in texts]},
            "inputs": {"inputs": texts},
            "inputs by name": {"inputs": {"image": texts}},
            "instances": {"instances": texts},
            "instances by name": {"instances": [{"image": text} for text in texts]},
        }[shape]
    )


@pytest.mark.parametrize(
    "shape", ["dataframe_split", "dataframe_records", "inputs", "inputs by name", "instances", "instances by name"]
)
def test_bad_image_in_mlflow_json_fails_only_its_own_row(service, registered, shape):
    images = [*GOOD.values(), *BAD.values()]
    status, found, _ = service.ask(as_table(shape, images), "application/json")
    assert status == 200 and len(found["predictions"]) == len(images)
    for row, data in zip(found["predictions"], GOOD.values()):
        assert same(row, expected(registered[1]["1"], data))
    for row in found["predictions"][len(GOOD) :]:
        assert row["error"] and (row["label"], row["probability"], row["scores"]) == (None, None, None)
    assert SECRET[:6] not in json.dumps(found)


def test_invalid_base64_number_and_null_fail_only_their_rows(service):
    body = json.dumps(
        {
            "dataframe_split": {
                "columns": ["image"],
                "data": [["!" + SECRET], [7], [None], [base64.b64encode(GOOD["grey"]).decode()]],
            }
        }
    )
    status, found, _ = service.ask(body, "application/json")
    assert (
        status == 200
        and [bool(row["error"]) for row in found["predictions"]] == [True, True, True, False]
        and SECRET not in json.dumps(found)
    )


def test_csv_gets_the_prediction_of_the_model(service, registered):
    text = "image\n" + base64.b64encode(GOOD["grey"]).decode() + "\n"
    status, found, _ = service.ask(text, "text/csv")
    assert status == 200 and same(found["predictions"][0], expected(registered[1]["1"], GOOD["grey"]))


REFUSED = {
    **{f"image: {name}": (422, "", data, "image/jpeg", {}) for name, data in BAD.items()},
    "empty image": (400, "empty", b"", "image/jpeg", {}),
    "empty JSON": (400, "empty", b"", "application/json", {}),
    "no type": (415, "Content-Type", GOOD["jpeg"], None, {}),
    "wrong type": (415, "Content-Type", SECRET, "text/plain", {}),
    "compressed": (415, "Content-Encoding", b"\x1f\x8b" + SECRET.encode(), "image/jpeg", {"Content-Encoding": "gzip"}),
    "charset": (415, "", "{}", "application/json; charset=latin-1", {}),
    "not JSON": (400, "not JSON", '{"' + SECRET, "application/json", {}),
    "not UTF-8": (400, "UTF-8", b'{"inputs": "\xff\xfe' + SECRET.encode() + b'"}', "application/json", {}),
    "deep JSON": (400, "nested", "[" * 100_000, "application/json", {}),
    "a list": (400, "dataframe_split", json.dumps([SECRET]), "application/json", {}),
    "no format": (400, "dataframe_split", json.dumps({SECRET: 1}), "application/json", {}),
    "two formats": (
        400,
        "exactly one",
        json.dumps({"inputs": [SECRET], "instances": [SECRET]}),
        "application/json",
        {},
    ),
    "wrong column": (400, "image", json.dumps({"dataframe_records": [{SECRET: SECRET}]}), "application/json", {}),
    "a column too many": (
        400,
        "got 2",
        json.dumps({"dataframe_records": [{"image": SECRET, SECRET: 1}]}),
        "application/json",
        {},
    ),
    "ragged": (
        400,
        "image",
        json.dumps({"dataframe_split": {"columns": ["image"], "data": [[SECRET, SECRET]]}}),
        "application/json",
        {},
    ),
    "split of a number": (400, "image", json.dumps({"dataframe_split": 7}), "application/json", {}),
    "one text": (400, "list", json.dumps({"inputs": SECRET}), "application/json", {}),
    "null": (400, "", json.dumps({"inputs": None}), "application/json", {}),
    "bad parameters": (
        400,
        "",
        json.dumps({"inputs": {SECRET: [1]}, "params": {SECRET: SECRET}}),
        "application/json",
        {},
    ),
    "CSV of others": (400, "image", f"a,b\n{SECRET},1\n", "text/csv", {}),
    "CSV not UTF-8": (400, "UTF-8", b"image\n\xff\xfe" + SECRET.encode(), "text/csv", {}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_invalid_request_gets_an_error_that_quotes_nothing(service, case):
    status, reason, body, kind, headers = REFUSED[case]
    found_status, found, _ = service.ask(body, kind, **headers)
    assert (
        found_status == status
        and reason in found["message"]
        and found["error_code"]
        and set(found) == {"error_code", "message"}
    )
    assert SECRET[:6] not in found["message"] and SECRET[:6] not in service.log()
    assert service.ask(GOOD["jpeg"])[0] == 200


def test_body_above_limit_is_refused_before_it_is_sent(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9000000000\r\n\r\n"
        )
        assert b" 413 " in connection.recv(4096)  # not a byte of the body has been sent


def test_client_that_sends_a_large_body_still_receives_413(service):
    status, found, headers = service.ask(os.urandom(7 << 20))
    assert status == 413 and "serve.max_request_mb, 2 MB" in found["message"] and headers["Connection"] == "close"
    assert service.ask(GOOD["jpeg"] + bytes((2 << 20) - len(GOOD["jpeg"])))[0] == 200  # the limit itself


def test_chunked_body_has_the_same_limit(service):
    def chunks(data):
        yield from (data[start : start + 50_000] for start in range(0, len(data), 50_000))

    assert service.ask(chunks(GOOD["large"]), "image/jpeg")[0] == 200
    assert service.ask(chunks(os.urandom(3 << 20)), "image/jpeg")[0] == 413


def test_endless_chunked_body_is_cut_off(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=60) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        sent = 0
        with pytest.raises(OSError):
            while sent < 200 << 20:
                connection.sendall(b"10000\r\n" + bytes(65536) + b"\r\n")
                sent += 65536
    assert sent < 40 << 20


def test_version_and_health_respond_and_other_routes_do_not(service, registered):
    status, found, _ = service.ask(None, None, "/version", "GET")
    model = registered[1]["1"]
    assert status == 200 and found == {
        "name": model_registry.name(registered[0]),
        "version": "1",
        "alias": "champion",
        "run_id": model.metadata.run_id,
        "transform": LINE,
        "classes": ["empty", "package"],
        "threshold": 0.5,
        "mlflow": found["mlflow"],
    }
    assert service.ask(None, None, "/health", "GET")[:2] == (200, {"status": "ok", "version": "1"})
    assert service.ask(None, None, "/ping", "GET")[0] == 200 and service.ask(None, None, "/docs", "GET")[0] == 404
    status, _, headers = service.ask(None, None, "/invocations", "GET")
    assert status == 405 and headers["Allow"] == "POST"
