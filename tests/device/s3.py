"""A real S3 server on loopback, its buckets, and a proxy before it that fails on demand."""

import http.client
import http.server
import random
import re
import subprocess
import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from harness import answers, free_port, until


@contextmanager
def moto_server():
    """Runs moto's S3 server as a process; yields its port."""
    port = free_port()
    command = [
        sys.executable,
        "-c",
        "import sys; from moto.server import main; main(sys.argv[1:])",
        "-H",
        "127.0.0.1",
        "-p",
        str(port),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        until(lambda: answers(port), "moto's server answers", 60)
        yield port
    finally:
        process.kill()
        process.wait()


@dataclass(frozen=True)
class Bucket:
    """A bucket of the S3 server."""

    port: int
    name: str

    @classmethod
    def make(cls, port, wish):
        name = (re.sub("[^a-z0-9]+", "-", wish.lower()).strip("-")[:40] or "b") + f"-{random.getrandbits(32):08x}"
        connection = http.client.HTTPConnection("127.0.0.1", port)
        connection.request("PUT", f"/{name}")
        assert connection.getresponse().status == 200
        connection.close()
        return cls(port, name)

    def store(self, prefix):
        """An obstore store of the objects below the prefix."""
        from obstore.store import from_url

        return from_url(
            f"s3://{self.name}/{prefix}",
            config={"aws_endpoint": f"http://127.0.0.1:{self.port}", "aws_region": "us-east-1"},
            client_options={"allow_http": True},
        )

    def fill(self, prefix, place):
        """Copies a published folder of models below the prefix, its pointers last."""
        import obstore

        store = self.store(prefix)
        for path in sorted(
            (path for path in place.rglob("*") if path.is_file()), key=lambda path: path.parent == place
        ):
            obstore.put(store, str(path.relative_to(place)), path.read_bytes())

    def objects(self, prefix="landing"):
        """{key: bytes}, keys below the prefix."""
        import obstore

        store = self.store(prefix)
        return {
            item["path"]: bytes(obstore.get(store, item["path"]).bytes())
            for batch in obstore.list(store)
            for item in batch
        }

    def put(self, key, data):
        """Writes an object without the agent."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.request("PUT", f"/{self.name}/landing/{key}", data)
        assert connection.getresponse().status == 200
        connection.close()


class FaultyProxy:
    """Forwards requests to a port, unless rule(method, path, number) returns something other than "pass":

    "silent" (reads, never responds); "dribble" (a byte of the response each 0.2 s); "lost" (forwards, then hangs up
    without a response); "half" (hangs up in the middle of the response); "reset" (hangs up at once); or
    (status, body) to respond itself.
    """

    def __init__(self, port, listen=0):
        self.target, self.rule, self.requests, self.signed_by, self.ranges, self.conditions = (
            port,
            lambda *_: "pass",
            [],
            [],
            [],
            [],
        )
        self.closing = threading.Event()
        proxy = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                proxy.handle(self)

            do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = handle_any

            def log_message(self, *_):
                """Prints nothing: the tests read proxy.requests."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", listen), Handler)
        self.server.daemon_threads = True
        self.server.handle_error = lambda *_: None  # the tests make clients die in the middle
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.closing.set()
        self.server.shutdown()
        self.server.server_close()

    def handle(self, request):
        body = request.rfile.read(int(request.headers.get("Content-Length", 0)))
        self.requests.append((request.command, request.path))
        self.ranges.append((request.path, request.headers.get("Range", "")))
        self.conditions.append(request.headers.get("If-None-Match", ""))
        self.signed_by.append(request.headers.get("Authorization", ""))
        action = self.rule(request.command, request.path, len(self.requests))
        if action == "silent":
            self.closing.wait(30)
        if action in ("silent", "reset"):
            request.close_connection = True
            return
        if isinstance(action, tuple):
            status, answer, headers = action[0], action[1].encode(), []
        else:
            status, answer, headers = self.forward(request, body)
        if action == "lost":
            request.close_connection = True
            return
        request.send_response(status)
        for name, value in headers:
            if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server"):
                request.send_header(name, value)
        request.send_header("Content-Length", str(len(answer)))
        if action == "dribble":
            request.wfile.write(b"X-Slow: ")
            while not self.closing.wait(0.2):
                request.wfile.write(b"x")
        request.end_headers()
        if action == "half":
            request.close_connection = True
            answer = answer[: len(answer) // 2]
        if request.command != "HEAD":
            request.wfile.write(answer)

    def forward(self, request, body):
        connection = http.client.HTTPConnection("127.0.0.1", self.target, timeout=30)
        try:
            connection.request(
                request.command,
                request.path,
                body,
                {k: v for k, v in request.headers.items() if k.lower() != "connection"},
            )
            response = connection.getresponse()
            return response.status, response.read(), response.getheaders()
        finally:
            connection.close()


def s3_error(code, message="said by the test"):
    """The body of an S3 error."""
    return f'<?xml version="1.0" encoding="UTF-8"?><Error><Code>{code}</Code><Message>{message}</Message></Error>'
