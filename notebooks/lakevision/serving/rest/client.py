"""A client of the REST service, with the standard library alone: copy this file to where you need it.

    from lakevision.serving.rest.client import Client
    porch = Client("http://127.0.0.1:5001")
    porch.predict(jpeg)                 # {"label": "package", "probability": 0.93, "scores": [0.07, 0.93], "error": None}
    porch.predict([jpeg, another])      # a list of these; a bad image has its reason in `error`, and the others their labels

A Databricks serving endpoint takes JSON only: Client("https://<workspace>/serving-endpoints/<name>", token=..., raw=False).
"""

import base64
import http.client
import json
from urllib.parse import urlsplit

LARGEST = 11 << 20  # bytes of images in one request: base64 makes 4 of 3, and the service takes 16 MB
BATCH = 64


class ServiceError(RuntimeError):
    """The service can't be reached, or refused; status is that of HTTP, 0 where there was no answer. The message is the service's reason."""

    def __init__(self, message, status=0):
        super().__init__(message)
        self.status = status


class Client:
    """One connection, kept open; not for two threads at a time. raw: one image goes as it is, not as JSON; timeout: seconds without a byte."""

    def __init__(self, url, token="", raw=True, timeout=60.0):
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"expected a URL like http://127.0.0.1:5001, got {url!r}")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self.connection = kind(parts.hostname, parts.port, timeout=timeout)
        self.path, self.raw = parts.path.rstrip("/"), raw
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}

    def predict(self, images):
        """A dict (label, probability, scores, error) for the bytes of an image, a list of them for a list. Raises ServiceError."""
        if isinstance(images, (bytes, bytearray, memoryview)):
            if self.raw:
                return self._ask("POST", "/invocations", bytes(images), "application/octet-stream")["predictions"][0]
            return self._table([images])[0]
        found = []
        for batch in batches(list(images)):
            found += self._table(batch)
        return found

    def version(self):
        """What serves: a dict of name, version, alias, run_id, transform, classes, threshold, mlflow. Raises ServiceError."""
        return self._ask("GET", "/version")

    def health(self):
        """Whether the service answers and takes requests."""
        try:
            self._ask("GET", "/health")
        except ServiceError:
            return False
        return True

    def close(self):
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
                # A connection that was kept open may have been closed at the other end meanwhile; asking twice is harmless, it changes nothing there.
                if not (used and attempt == 1 and isinstance(error, (http.client.RemoteDisconnected, ConnectionError))):
                    raise ServiceError(
                        f"no answer from {self.connection.host}:{self.connection.port}: {error or type(error).__name__}"
                    ) from error
        try:
            found = json.loads(content)
        except ValueError as error:
            raise ServiceError(f"{response.status} {response.reason}, and no JSON", response.status) from error
        if response.status != 200:
            raise ServiceError(
                f"{response.status}: {found.get('message', response.reason) if isinstance(found, dict) else response.reason}",
                response.status,
            )
        return found


def batches(images):
    """The list in parts of at most BATCH images and LARGEST bytes; one image that is larger goes alone, and the service says no."""
    part, size = [], 0
    for image in images:
        if part and (len(part) == BATCH or size + len(image) > LARGEST):
            yield part
            part, size = [], 0
        part.append(image)
        size += len(image)
    if part:
        yield part
