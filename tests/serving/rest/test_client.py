"""The client of the REST service, against a small HTTP server and against the service itself."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from rest_service import BAD, GOOD, expected, same

from lakevision.serving.rest import client

SETTINGS = ("serve.workers=1",)
ROW = {"label": "empty", "probability": 1.0, "scores": [1.0, 0.0], "error": None}


@pytest.fixture
def server():
    """An HTTP server that records requests and sends server.reply = (status, body): (server, client)."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            listening.requests.append((self.path, dict(self.headers), body))
            status, reply = listening.reply
            self.send_response(status)
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        do_GET = do_POST

        def log_message(self, *_):
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    listening.requests, listening.reply = [], (200, json.dumps({"predictions": [ROW]}).encode())
    thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
    thread.start()
    porch = client.Client(f"http://127.0.0.1:{listening.server_port}/endpoints/porch/", token="dapi-good", raw=False)
    yield listening, porch
    porch.close()
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_images_go_as_base64_with_token_below_the_path(server):
    listening, porch = server
    assert porch.predict(b"photo") == ROW and porch.predict([b"photo"]) == [ROW] and porch.predict([]) == []
    assert len(listening.requests) == 2
    for path, headers, body in listening.requests:
        assert path == "/endpoints/porch/invocations" and headers["Authorization"] == "Bearer dapi-good"
        assert json.loads(body) == {"dataframe_split": {"columns": ["image"], "data": [["cGhvdG8="]]}}


def test_raw_client_sends_a_single_image_as_it_is(server):
    listening, porch = server
    porch.raw = True
    assert porch.predict(bytearray(b"photo")) == ROW
    _, headers, body = listening.requests[0]
    assert body == b"photo" and headers["Content-Type"] == "application/octet-stream"


@pytest.mark.parametrize(
    "reply, message",
    [
        ((422, b'{"message": "damaged"}'), "422: damaged"),
        ((503, b"[]"), "503: Service Unavailable"),
        ((200, b"<html>"), "200 OK, and no JSON"),
    ],
    ids=["message", "no message", "no JSON"],
)
def test_error_response_raises_with_status_and_reason(server, reply, message):
    listening, porch = server
    listening.reply = reply
    with pytest.raises(client.ServiceError, match=message) as refused:
        porch.version()
    assert refused.value.status == reply[0]
    assert porch.health() == (reply[0] == 200 and reply[1] != b"<html>")


@pytest.mark.parametrize("url", ["127.0.0.1:5001", "ftp://host", "http://"])
def test_client_refuses_what_is_no_url(url):
    with pytest.raises(ValueError, match="expected a URL like"):
        client.Client(url)


def test_long_list_is_sent_in_several_requests():
    sizes = [
        [len(part) for part in client.batches([bytes(1)] * 130)],
        [len(part) for part in client.batches([bytes(5 << 20)] * 5)],
        [len(part) for part in client.batches([bytes(30 << 20), b"x"])],
    ]
    assert sizes == [[64, 64, 2], [2, 2, 1], [1, 1]]


@pytest.mark.service
def test_client_scores_like_the_model_and_reconnects(service, registered):
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
        unreachable = client.Client(f"http://127.0.0.1:{unused.getsockname()[1]}")
        assert not unreachable.health()
        with pytest.raises(client.ServiceError, match="no answer from 127.0.0.1") as silent:
            unreachable.predict(GOOD["jpeg"])
    assert silent.value.status == 0
    porch.close()
