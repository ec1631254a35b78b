"""Limits of a connection to the REST service: endless headers, slow clients, connections that only wait."""

import json
import socket
import threading
import time

import pytest
import rest_service
from rest_service import GOOD, HEAD, LIMITS, peak, workers

SETTINGS = LIMITS

pytestmark = pytest.mark.service


def connect(service):
    return socket.create_connection(("127.0.0.1", service.port), timeout=30)


@pytest.mark.parametrize(
    "part",
    [b"X-A: " + b"a" * 60_000, b"X-B: b\r\n" * 9000, b"X-" + b"c" * 60_000 + b": c"],
    ids=["value", "many", "name"],
)
def test_long_headers_get_431(service, part):
    with connect(service) as one:
        one.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n" + part + b"\r\n\r\n")
        response = one.makefile("rb").read()
    assert (
        response.startswith(b"HTTP/1.1 431 ")
        and json.loads(response.partition(b"\r\n\r\n")[2])["error_code"] == "REQUEST_HEADER_FIELDS_TOO_LARGE"
    )


def test_headers_of_30_kb_are_accepted(service):
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
def test_endless_input_is_cut_off_and_not_kept_in_memory(service, case):
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
    """Returns the bytes that arrive before the service closes the connection. Fails after `seconds`."""
    one.settimeout(seconds)
    with one.makefile("rb") as stream:
        return stream.read()


def test_silent_connection_is_closed(service):
    with connect(service) as one:
        began = time.monotonic()
        assert closes(one, 8) == b"" and time.monotonic() - began > 1.5


def trickle(one, parts, pause, stop):
    """Sends the parts, each after a pause in seconds, until the event `stop` or until the connection breaks."""
    for part in parts:
        if stop.wait(pause):
            return
        try:
            one.sendall(part)
        except OSError:
            return


@pytest.mark.parametrize(
    "first, parts, response",
    [
        (b"GET /version HTTP/1.1\r\n", [b"X-A: b\r\n"] * 60, b"HTTP/1.1 408 "),
        (b"G", [b"\0"] * 0, b"HTTP/1.1 408 "),
        (b"", [b"\r\n"] * 60, b""),
        (b"GET /ping HTTP/1.1\r\n\r\n", [b"\r\n"] * 60, b"HTTP/1.1 200 "),
        (b"POST /nowhere HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", [b"x"] * 90, b"HTTP/1.1 404 "),
    ],
    ids=["headers", "a letter", "blank lines", "blank lines after a response", "rest of a refused body"],
)
def test_connection_without_a_whole_request_is_closed(service, first, parts, response):
    stop = threading.Event()
    with connect(service) as one:
        sender = threading.Thread(target=trickle, args=(one, [first, *parts], 0.2, stop))
        sender.start()
        try:
            assert closes(one, 18).startswith(response)
        except ConnectionError:
            pass  # the service reset the connection, because the client was still sending
        finally:
            stop.set()
            sender.join()


def test_slow_upload_outlasts_idle_seconds_and_succeeds(service):
    data = GOOD["large"]
    step = -(-len(data) // 10)
    with connect(service) as one:
        for _ in range(2):
            one.sendall(HEAD % len(data))
            for start in range(0, len(data), step):
                time.sleep(0.5)
                one.sendall(data[start : start + step])
            answer = one.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ") and b"close" not in answer
            time.sleep(1)  # less than idle_seconds: the connection stays open


def test_pipelined_requests_all_get_a_response(service):
    with connect(service) as one:
        one.sendall(
            b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 500
            + b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
        )
        assert closes(one, 20).count(b"HTTP/1.1 200 ") == 501


def test_client_that_reads_no_response_is_cut_off(service):
    with connect(service) as one:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        one.settimeout(3)
        with pytest.raises(TimeoutError):
            while True:
                one.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
        rest_service.until(lambda: not workers(service)[0].net_connections("inet"), 30, service.log)
