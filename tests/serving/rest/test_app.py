"""The REST service as real processes on loopback, asked by sockets, MLflow's JSON and the client."""

import base64
import json
import os
import socket
import time

import pandas as pd
import pytest
import rest_service  # noqa: E402
from rest_service import BAD, GOOD, LINE, SECRET, expected, same  # noqa: E402

from lakevision.registry import model_registry
from lakevision.serving.rest import client, loaded_model

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    return rest_service.registered(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def service(registered, tmp_path_factory):
    with rest_service.serving(registered[0], tmp_path_factory.mktemp("log") / "log") as running:
        yield running
    assert running.process.returncode == 0


@pytest.mark.parametrize(
    "kind", ["image/jpeg", "image/png", "image/x-anything", "application/octet-stream", "IMAGE/JPEG; q=1"]
)
@pytest.mark.parametrize("name", GOOD)
def test_an_image_as_it_is_gets_what_the_model_says_in_process(service, registered, name, kind):
    status, found, _ = service.ask(GOOD[name], kind)
    assert (
        status == 200
        and len(found["predictions"]) == 1
        and same(found["predictions"][0], expected(registered[1]["1"], GOOD[name]))
    )


def as_table(shape, images):
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
def test_mlflows_json_and_a_bad_image_costs_its_own_row(service, registered, shape):
    images = [*GOOD.values(), *BAD.values()]
    status, found, _ = service.ask(as_table(shape, images), "application/json")
    assert status == 200 and len(found["predictions"]) == len(images)
    for row, data in zip(found["predictions"], GOOD.values()):
        assert same(row, expected(registered[1]["1"], data))
    for row in found["predictions"][len(GOOD) :]:
        assert row["error"] and (row["label"], row["probability"], row["scores"]) == (None, None, None)
    assert SECRET[:6] not in json.dumps(found)


def test_text_that_is_no_base64_and_a_number_cost_their_own_rows(service):
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


def test_csv(service, registered):
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
def test_what_is_wrong_is_said_and_nothing_of_it_repeated(service, case):
    status, words, body, kind, headers = REFUSED[case]
    found_status, found, _ = service.ask(body, kind, **headers)
    assert (
        found_status == status
        and words in found["message"]
        and found["error_code"]
        and set(found) == {"error_code", "message"}
    )
    assert SECRET[:6] not in found["message"] and SECRET[:6] not in service.log()
    assert service.ask(GOOD["jpeg"])[0] == 200


def test_a_body_above_the_limit_is_refused_before_it_is_read(service):
    with socket.create_connection(("127.0.0.1", service.port), timeout=30) as connection:
        connection.sendall(
            b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: 9000000000\r\n\r\n"
        )
        assert b" 413 " in connection.recv(4096)  # not a byte of the body has been sent


def test_a_client_that_sends_all_of_a_large_body_still_reads_why_not(service):
    status, found, headers = service.ask(os.urandom(7 << 20))
    assert status == 413 and "serve.max_request_mb, 2 MB" in found["message"] and headers["Connection"] == "close"
    assert service.ask(GOOD["jpeg"] + bytes((2 << 20) - len(GOOD["jpeg"])))[0] == 200  # the limit itself


def test_chunked_bodies_count_too(service):
    def chunks(data):
        yield from (data[start : start + 50_000] for start in range(0, len(data), 50_000))

    assert service.ask(chunks(GOOD["large"]), "image/jpeg")[0] == 200
    assert service.ask(chunks(os.urandom(3 << 20)), "image/jpeg")[0] == 413


def test_an_endless_chunked_body_is_cut(service):
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


def test_a_failure_is_logged_by_its_place_not_by_its_words(caplog):
    try:
        json.loads("[")
    except ValueError as error:
        error.args = (SECRET,)
        loaded_model.log_failure(error)
    assert "a request failed: JSONDecodeError at decoder.py:" in caplog.text and SECRET not in caplog.text


def test_routes(service, registered):
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


def test_the_client(service, registered):
    porch = client.Client(service.url)
    assert porch.health() and porch.version()["version"] == "1"
    assert same(porch.predict(GOOD["rotated"]), expected(registered[1]["1"], GOOD["rotated"]))
    rows = porch.predict([GOOD["jpeg"], BAD["truncated"], GOOD["grey"]])
    assert [row["error"] is None for row in rows] == [True, False, True] and porch.predict([]) == []
    as_json = client.Client(service.url, raw=False)
    assert same(as_json.predict(GOOD["grey"]), expected(registered[1]["1"], GOOD["grey"]))
    as_json.close()
    with pytest.raises(client.ServiceError, match="422: damaged JPEG") as refused:
        porch.predict(BAD["truncated"])
    assert refused.value.status == 422
    porch.connection.sock.shutdown(socket.SHUT_RDWR)  # as a service does with a connection that was idle too long
    assert porch.predict(GOOD["jpeg"])["error"] is None
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        nobody = client.Client(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert not nobody.health()
        with pytest.raises(client.ServiceError, match="no answer from 127.0.0.1") as silent:
            nobody.predict(GOOD["jpeg"])
    assert silent.value.status == 0
    porch.close()


def test_a_long_list_goes_in_several_requests():
    sizes = [
        [len(part) for part in client.batches([bytes(1)] * 130)],
        [len(part) for part in client.batches([bytes(5 << 20)] * 5)],
        [len(part) for part in client.batches([bytes(30 << 20), b"x"])],
    ]
    assert sizes == [[64, 64, 2], [2, 2, 1], [1, 1]]


def test_connections_are_dealt_evenly_though_they_come_one_by_one(service):
    def counts():
        return [
            sum(one.status == "ESTABLISHED" for one in process.net_connections("inet"))
            for process in rest_service.workers(service)
        ]

    deadline = time.monotonic() + 10
    while sum(counts()) and time.monotonic() < deadline:
        time.sleep(0.1)  # until the connections of other tests are gone
    made = []
    for _ in range(6):
        made.append(socket.create_connection(("127.0.0.1", service.port)))
        time.sleep(0.25)
    found = counts()
    for connection in made:
        connection.close()
    assert found == [3, 3]


def test_a_path_is_read_in_process_and_refused_by_a_service(registered, tmp_path, monkeypatch):
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
