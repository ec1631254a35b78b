"""What a client of the REST service can't do to it: rows and pixels without end, headers without end, connections that only wait."""

import asyncio
import base64
import json
import socket
import threading
import time
from pathlib import Path

import pytest
import rest_service  # noqa: E402
from PIL import Image
from rest_service import GOOD, encoded, workers  # noqa: E402

from lakevision.platform import config
from lakevision.serving.rest import app as answering
from lakevision.serving.rest import worker

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
LIMITS = (
    "serve.workers=1",
    "serve.max_rows=100",
    "serve.max_megapixels=4",
    "serve.idle_seconds=2",
    "serve.timeout_seconds=12",
    "serve.max_request_mb=3",
)

pytestmark = pytest.mark.service


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    return rest_service.registered(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def service(registered, tmp_path_factory):
    with rest_service.serving(registered[0], tmp_path_factory.mktemp("log") / "log", *LIMITS) as running:
        yield running
    assert running.process.returncode == 0 and "Traceback" not in running.log()


def peak(service):
    """The worker's largest resident memory so far, MB."""
    lines = Path(f"/proc/{workers(service)[0].pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def connect(service):
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


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
def test_a_table_may_have_max_rows_and_no_more(service, shape):
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
def test_a_million_rows_are_refused_unread(service, body, kind):
    before, began = peak(service), time.monotonic()
    status, found, _ = service.ask(body, kind)
    assert status == 400 and "serve.max_rows" in found["message"]
    assert time.monotonic() - began < 2 and peak(service) - before < 60


@pytest.mark.parametrize("shape", SHAPES)
def test_short_texts_beside_a_long_one_take_no_room(service, shape):
    before = peak(service)
    status, found, _ = service.ask(
        table(shape, ["A" * 2_500_000] + [base64.b64encode(GOOD["grey"]).decode()] + [""] * 98), "application/json"
    )
    assert status == 200 and [row["error"] is None for row in found["predictions"][:3]] == [False, True, False]
    assert peak(service) - before < 150  # NumPy would take 1,000


def test_inputs_spelt_with_escapes_take_no_room_either(service):
    before = peak(service)
    body = table("inputs", ["A" * 2_500_000] + [""] * 99).replace("inputs", "\\u0069nputs")
    assert service.ask(body, "application/json")[0] == 200 and peak(service) - before < 150


def test_a_picture_above_max_megapixels_is_refused_by_its_header_and_the_others_are_answered(service):
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


def test_the_limit_suits_cameras_of_12_to_64_megapixels():
    assert config.load().serve.max_megapixels * 1_000_000 >= 9248 * 6944


@pytest.mark.parametrize(
    "part",
    [b"X-A: " + b"a" * 60_000, b"X-B: b\r\n" * 9000, b"X-" + b"c" * 60_000 + b": c"],
    ids=["value", "many", "name"],
)
def test_long_headers_get_431(service, part):
    with connect(service) as one:
        one.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n" + part + b"\r\n\r\n")
        told = one.makefile("rb").read()
    assert (
        told.startswith(b"HTTP/1.1 431 ")
        and json.loads(told.partition(b"\r\n\r\n")[2])["error_code"] == "REQUEST_HEADER_FIELDS_TOO_LARGE"
    )


def test_headers_of_30_kb_are_taken(service):
    assert service.ask(GOOD["jpeg"], "image/jpeg", **{"X-Long": "a" * 30_000})[0] == 200


ENDLESS = {
    "value": (b"GET /version HTTP/1.1\r\nHost: x\r\nX-A: ", b"a" * 65536),
    "URL": (b"GET /", b"a" * 65536),
    "many": (b"GET /version HTTP/1.1\r\n", b"X-A: 12345678901234567890\r\n" * 2000),
    "blank lines": (b"", b"\r\n" * 30_000),
    "trailer": (
        HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\nX-A: ",
        b"a" * 65536,
    ),
    "trailers": (
        HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n",
        b"X-A: 12345678901234567890\r\n" * 2000,
    ),
    "extension": (HEAD.replace(b"Content-Length: %d", b"Transfer-Encoding: chunked") + b"1;", b"a" * 65536),
}


@pytest.mark.parametrize("case", ENDLESS)
def test_what_has_no_end_is_cut_and_not_kept(service, case):
    first, more = ENDLESS[case]
    before, sent = peak(service), 0
    with connect(service) as one:
        one.sendall(first)
        with pytest.raises(OSError):
            while sent < 100 << 20:
                one.sendall(more)
                sent += len(more)
    assert sent < 20 << 20 and peak(service) - before < 40 and service.ask(GOOD["jpeg"])[0] == 200


def closes(one, seconds):
    """The bytes that come before the service closes the connection. Fails where it is open for longer than so many seconds."""
    one.settimeout(seconds)
    with one.makefile("rb") as stream:
        return stream.read()


def test_a_connection_that_sends_nothing_is_closed(service):
    with connect(service) as one:
        began = time.monotonic()
        assert closes(one, 8) == b"" and time.monotonic() - began > 1.5


def trickle(one, parts, pause, stop):
    for part in parts:
        if stop.wait(pause):
            return
        try:
            one.sendall(part)
        except OSError:
            return


@pytest.mark.parametrize(
    "first, parts, told",
    [
        (b"GET /version HTTP/1.1\r\n", [b"X-A: b\r\n"] * 60, b"HTTP/1.1 408 "),
        (b"G", [b"\0"] * 0, b"HTTP/1.1 408 "),
        (b"", [b"\r\n"] * 60, b""),
        (b"GET /ping HTTP/1.1\r\n\r\n", [b"\r\n"] * 60, b"HTTP/1.1 200 "),
        (b"POST /nowhere HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", [b"x"] * 90, b"HTTP/1.1 404 "),
    ],
    ids=["headers", "a letter", "blank lines", "blank lines after an answer", "a body nobody wants"],
)
def test_a_connection_that_only_seems_busy_is_closed(service, first, parts, told):
    stop = threading.Event()
    with connect(service) as one:
        sender = threading.Thread(target=trickle, args=(one, [first, *parts], 0.2, stop))
        sender.start()
        try:
            assert closes(one, 18).startswith(told)
        except ConnectionError:
            pass  # reset, since it was sending
        finally:
            stop.set()
            sender.join()


def test_a_slow_upload_is_longer_than_a_connection_may_idle_and_is_answered(service):
    data = GOOD["large"]
    step = -(-len(data) // 10)
    with connect(service) as one:
        for again in range(2):
            one.sendall(HEAD % len(data))
            for start in range(0, len(data), step):
                time.sleep(0.5)
                one.sendall(data[start : start + step])
            answer = one.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"close" not in answer
            time.sleep(1)  # less than idle_seconds: it stays


def test_requests_that_come_before_the_answer_are_all_answered(service):
    with connect(service) as one:
        one.sendall(
            b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 500
            + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert closes(one, 20).count(b"HTTP/1.1 200 ") == 501


def test_who_reads_no_answer_is_cut_off(service):
    with connect(service) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(3)
        with pytest.raises(TimeoutError):
            while True:
                one.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        rest_service.until(lambda: not workers(service)[0].net_connections("inet"), 30, service.log)


def test_a_stop_serves_all_connections_that_have_come_down():
    import uvicorn

    from lakevision.serving.rest import loaded_model
    from lakevision.serving.rest.batcher import Batcher

    async def stopped():
        ours, theirs = socket.socketpair()
        state = answering.State(loaded_model.Loaded("7", None, None, {"version": "7"}), Batcher(1), 1 << 20, 9, 5.0)
        settings = uvicorn.Config(
            answering.app(state, 1), http="httptools", ws="none", access_log=False, log_level="warning"
        )
        settings.load()
        one = worker.Server(settings, state, theirs)
        one.lifespan = settings.lifespan_class(settings)
        await one.startup()
        clients = []
        for _ in range(5):  # each its own message, as supervisor.deal() sends them, and none read until the stop
            client, there = socket.socketpair()
            client.settimeout(5)
            client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            socket.send_fds(ours, [b"c"], [there.fileno()])
            there.close()
            clients.append(client)
        await one.shutdown()
        return [client.recv(4096)[:13] for client in clients]

    assert asyncio.run(stopped()) == [b"HTTP/1.1 200 "] * 5
