"""A Databricks Unity Catalog volume through the Files API, with the standard library.

The SDK would take 3 s and 70 MB of a Pi.

    volume://<workspace host>/<catalog>/<schema>/<volume>/<folder>

PUT /api/2.0/fs/files/Volumes/...?overwrite=false returns 204, or 409 if the file exists.
PUT /api/2.0/fs/directories/Volumes/... creates a missing folder.
Credentials: a service principal's OAuth (client credentials grant at /oidc/v1/token), or a personal access token.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import quote, urlencode

from device.store import credentials, types

if TYPE_CHECKING:
    from device.config import Settings


def open_volume(settings: Settings, secrets: dict[str, str]) -> types.Store:
    """The Store of a volume:// URL, without a network request. Raises types.Denied without credentials."""
    session, root = open_session(settings, secrets)

    def put(key: str, data: bytes) -> None:
        url = f"/api/2.0/fs/files{quote(f'{root}/{key}')}?overwrite=false"
        status, body = session.request("PUT", url, data)
        if status == 404:
            folder = quote(f"{root}/{key}".rpartition("/")[0])
            check(*session.request("PUT", f"/api/2.0/fs/directories{folder}"), secrets)
            status, body = session.request("PUT", url, data)
        if status == 409:
            raise types.AlreadyThere
        check(status, body, secrets)

    def get(key: str) -> bytes:
        status, body = session.request("GET", f"/api/2.0/fs/files{quote(f'{root}/{key}')}")
        return check(status, body, secrets)

    return types.Store(settings.store.url, put, get, parallel=False)  # there is only one connection


def open_session(settings: Settings, secrets: dict[str, str]) -> tuple[Session, str]:
    """(session with the workspace of settings.store.url, path of the folder there). Raises types.Denied."""
    host, _, path = settings.store.url[len("volume://") :].partition("/")
    return Session(settings, host, secrets), "/Volumes/" + path.strip("/")


def check(status: int, body: bytes, secrets: dict[str, str]) -> bytes:
    """The body of a successful response. Raises the exceptions of types.py for any other."""
    if 200 <= status < 300:
        return body
    text = credentials.redact(body[:2000].decode("utf-8", "replace"), secrets)
    raise types.classify(status, f"the workspace answered {status} {http.client.responses.get(status, '')}: {text}")


class Session:
    """One connection, kept open, and its access token."""

    def __init__(self, settings: Settings, host: str, secrets: dict[str, str]):
        self.host, self.secrets, self.timeout_s = host, secrets, settings.upload.timeout_s
        self.plain = settings.store.allow_http
        self.connect_timeout_s = settings.upload.connect_timeout_s
        self.connection: http.client.HTTPConnection | None = None
        self.token, self.token_ends = secrets.get("DATABRICKS_TOKEN"), float("inf")
        self.client = secrets.get("DATABRICKS_CLIENT_ID"), secrets.get("DATABRICKS_CLIENT_SECRET")
        if all(self.client):
            self.token, self.token_ends = None, 0.0
        elif not self.token:
            raise types.Denied(
                "a volume needs DATABRICKS_CLIENT_ID and DATABRICKS_CLIENT_SECRET, or DATABRICKS_TOKEN: "
                "see README.md, Credentials"
            )

    def request(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        """(status, body) of a signed-in request. Raises types.Unavailable."""
        if time.monotonic() > self.token_ends - 60:
            self._sign_in()
        status, answer = self._send(
            method,
            path,
            body,
            {"Authorization": f"Bearer {self.token}", "Content-Type": "application/octet-stream", **(headers or {})},
        )
        if status == 401 and all(self.client):
            self.token_ends = 0.0  # revoked early: the next attempt signs in again
        return status, answer

    def _sign_in(self) -> None:
        basic = base64.b64encode("{}:{}".format(*self.client).encode()).decode()
        form = urlencode({"grant_type": "client_credentials", "scope": "all-apis"}).encode()
        status, answer = self._send(
            "POST",
            "/oidc/v1/token",
            form,
            {"Authorization": f"Basic {basic}", "Content-Type": "application/x-www-form-urlencoded"},
        )
        check(status, answer, self.secrets)
        try:
            granted = json.loads(answer)
            self.secrets["OAUTH_TOKEN"] = granted["access_token"]  # for redact()
            self.token = granted["access_token"]
            self.token_ends = time.monotonic() + float(granted.get("expires_in", 3600))
        except (ValueError, KeyError, TypeError) as error:
            raise types.Unavailable(
                f"the workspace's answer to the sign-in is no token ({type(error).__name__}): a captive portal?"
            ) from error

    def _send(self, method: str, path: str, body: bytes, headers: dict[str, str]) -> tuple[int, bytes]:
        """One request within timeout_s in all.

        http.client's own time-out applies to each read, so a server that sends byte after byte never exceeds it.
        """
        fresh = self.connection is None
        if self.connection is None:
            kind = http.client.HTTPConnection if self.plain else http.client.HTTPSConnection
            self.connection = kind(self.host, timeout=self.connect_timeout_s)
        connection = self.connection
        late = threading.Timer(self.timeout_s, self._cut)
        late.start()
        try:
            if fresh:
                connection.connect()
                connection.sock.settimeout(self.timeout_s)
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            answer = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._close()
            if not fresh and isinstance(error, (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError)):
                # The server closed an idle connection. Repeating is harmless, because a PUT only ever creates.
                return self._send(method, path, body, headers)
            why = str(error) or type(error).__name__
            raise types.Unavailable(
                f"{self.host}: {why}" if late.is_alive() else f"{self.host}: no answer within {self.timeout_s:g} s"
            ) from None
        finally:
            late.cancel()
        if response.will_close:
            self._close()
        return response.status, answer

    def _cut(self) -> None:
        connection = self.connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError as error:  # the request ended at this very moment
                print(f"{self.host}: closing a late connection: {error}", flush=True)

    def _close(self) -> None:
        if self.connection is not None:
            self.connection.close()
            self.connection = None
