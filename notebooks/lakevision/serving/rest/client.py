"""A client of the REST service that needs only the standard library.

To use the client elsewhere, copy this file.

    from lakevision.serving.rest.client import Client
    porch = Client("http://127.0.0.1:5001")
    porch.predict(jpeg)             # {"label": "package", "probability": 0.93, "scores": [0.07, 0.93], "error": None}
    porch.predict([jpeg, another])  # a list of such dicts; a bad image has the reason in `error`

A Databricks serving endpoint accepts JSON only:
Client("https://<workspace>/serving-endpoints/<name>", token=..., raw=False).
"""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Iterable, Iterator
from typing import overload
from urllib.parse import urlsplit

# Bytes of images in one request: base64 turns 3 bytes into 4, and the service accepts 16 MB.
LARGEST = 11 << 20
BATCH = 64  # images in one request


class ServiceError(RuntimeError):
    """The service is unreachable or refused the request. status: HTTP status, 0 without a response."""

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """One open connection, not thread-safe. raw: sends a single image unencoded, not as JSON.

    timeout: seconds to wait for the next byte.
    """

    def __init__(self, url: str, token: str = "", raw: bool = True, timeout: float = 60.0) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected a URL like http://127.0.0.1:5001, got {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname, parts.port, timeout=timeout)
        self.path, self.raw = parts.path.rstrip("/"), raw
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    @overload
    def predict(self, images: bytes | bytearray | memoryview) -> dict: ...

    @overload
    def predict(self, images: Iterable[bytes]) -> list[dict]: ...

    def predict(self, images: bytes | bytearray | memoryview | Iterable[bytes]) -> dict | list[dict]:
        """Returns a dict (label, probability, scores, error) for one image file, or a list of dicts for several.

        Raises ServiceError.
        """
        if isinstance(images, (bytes, bytearray, memoryview)):
            if self.raw:
                return self._ask("POST", "/invocations", bytes(images), "application/octet-stream")["predictions"][0]
            return self._table([images])[0]
        rows = []
        for batch in batches(list(images)):
            rows += self._table(batch)
        return rows

    def version(self) -> dict:
        """Returns the version's name, version, alias, run_id, transform, classes, threshold, mlflow.

        Raises ServiceError.
        """
        return self._ask("GET", "/version")

    def health(self) -> bool:
        """True if the service accepts requests."""
        try:
            self._ask("GET", "/health")
        except ServiceError:
            return False
        return True

    def close(self) -> None:
        """Closes the connection."""
        self.connection.close()

    def _table(self, images):
        rows = [[base64.b64encode(image).decode()] for image in images]
        body = json.dumps({"dataframe_split": {"columns": ["image"], "data": rows}}).encode()
        return self._ask("POST", "/invocations", body, "application/json")["predictions"]

    def _ask(self, method, path, body=None, kind=None):
        headers = {**self.headers, "Content-Type": kind} if kind else self.headers
        for attempt in (1, 2):
            used = self.connection.sock is not None
            try:
                self.connection.request(method, self.path + path, body, headers)
                response = self.connection.getresponse()
                content = response.read()
                break
            except (http.client.HTTPException, OSError) as error:
                self.connection.close()
                # The service may have closed the kept connection. A second request is harmless: it changes nothing.
                if not (used and attempt == 1 and isinstance(error, (http.client.RemoteDisconnected, ConnectionError))):
                    raise ServiceError(
                        f"no answer from {self.connection.host}:{self.connection.port}: {error or type(error).__name__}"
                    ) from error
        try:
            found = json.loads(content)
        except ValueError as error:
            raise ServiceError(f"{response.status} {response.reason}, and no JSON", response.status) from error
        if response.status != 200:
            reason = found.get("message", response.reason) if isinstance(found, dict) else response.reason
            raise ServiceError(f"{response.status}: {reason}", response.status)
        return found


def batches(images: list[bytes]) -> Iterator[list[bytes]]:
    """Splits a list into batches of at most BATCH images and LARGEST bytes.

    A larger image goes alone, and the service refuses it.
    """
    part: list[bytes] = []
    size = 0
    for image in images:
        if part and (len(part) == BATCH or size + len(image) > LARGEST):
            yield part
            part, size = [], 0
        part.append(image)
        size += len(image)
    if part:
        yield part
