"""Servers on loopback: MLflow's own, and small ones for Databricks' Files API and Google's XML API."""

import base64
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager
from urllib.parse import parse_qs, unquote, urlsplit

from harness import answers, free_port, until

MLFLOW = {"MLFLOW_DISABLE_TELEMETRY": "true"}


@contextmanager
def mlflow_server(database, artifacts, log):
    """Runs a real MLflow server on a sqlite file, made if missing, and a folder of artifacts; yields its port."""
    port = free_port()
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--backend-store-uri",
        f"sqlite:///{database}",
        "--artifacts-destination",
        str(artifacts),
        "--serve-artifacts",
        "--workers",
        "1",
    ]
    with open(log, "w") as file:
        process = subprocess.Popen(
            command, stdout=file, stderr=file, env={**os.environ, **MLFLOW}, start_new_session=True
        )
    try:
        until(lambda: answers(port), "MLflow answers", 90)
        yield port
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


class Server:
    """Serves one function answer(method, path, query, headers, body) -> (status, bytes) on a free port."""

    def __init__(self, answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def handle_any(self):
                url = urlsplit(self.path)
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, content, *headers = answer(
                    self.command, unquote(url.path), parse_qs(url.query), self.headers, body
                )
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_HEAD = do_POST = handle_any

            def log_message(self, *_):
                """Prints nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()


class Workspace:
    """A workspace with the volume /Volumes/main/lake/landing; sign-in by OAuth or with the token "dapi-good"."""

    def __init__(self):
        self.files, self.folders, self.tokens, self.sign_ins = {}, {"/Volumes/main/lake/landing"}, {"dapi-good"}, 0

    def answer(self, method, path, query, headers, body):
        if path == "/oidc/v1/token":
            if (
                headers["Authorization"] != "Basic " + base64.b64encode(b"client-1:client/secret").decode()
                or b"grant_type=client_credentials" not in body
            ):
                return 401, b'{"error":"invalid_client"}'
            self.sign_ins += 1
            self.tokens.add(f"oauth-{self.sign_ins}")
            return 200, json.dumps(
                {"access_token": f"oauth-{self.sign_ins}", "expires_in": 3600, "token_type": "Bearer"}
            ).encode()
        if headers.get("Authorization", "").partition(" ")[2] not in self.tokens:
            return 401, b'{"error_code":"UNAUTHENTICATED","message":"bad token"}'
        kind, _, target = path[len("/api/2.0/fs/") :].partition("/")
        target = "/" + target
        if kind == "directories" and method == "PUT":
            parts = target.split("/")
            self.folders |= {"/".join(parts[:end]) for end in range(2, len(parts) + 1)}
            return 204, b""
        if method == "GET":
            return (200, self.files[target]) if target in self.files else (404, b'{"error_code":"NOT_FOUND"}')
        if target.rpartition("/")[0] not in self.folders:
            return 404, b'{"error_code":"NOT_FOUND","message":"The parent directory does not exist."}'
        if target in self.files and query.get("overwrite") != ["true"]:
            return 409, b'{"error_code":"ALREADY_EXISTS"}'
        self.files[target] = body
        return 204, b""


class Google:
    """The part of Google Cloud Storage's XML API that an upload needs."""

    def __init__(self):
        self.files = {}

    def answer(self, method, path, query, headers, body):
        if method == "GET":
            if path not in self.files:
                return 404, b"<Error><Code>NoSuchKey</Code></Error>"
            return 200, self.files[path], ("ETag", '"1"'), ("Last-Modified", "Tue, 24 Nov 2026 03:00:00 GMT")
        if headers.get("x-goog-if-generation-match") == "0" and path in self.files:
            return 412, b"<Error><Code>PreconditionFailed</Code></Error>"
        self.files[path] = body
        return 200, b"", ("ETag", '"1"')
