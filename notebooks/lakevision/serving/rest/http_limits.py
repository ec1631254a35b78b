"""Limits of size and time for uvicorn's httptools connection, which leaves such limits to a proxy.

Without limits, a client that sends nothing, or an endless header, occupies a worker's slot and memory indefinitely. The
limits of a body are serve.max_request_mb and serve.timeout_seconds: see app.py.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from lakevision.serving.rest import app

# Bytes of a request line and its headers, or of anything else outside a body. Browsers and proxies send 1 to 8 kB.
MOST_HEAD = 32 << 10


class TooLong(Exception):
    """The request line and the headers exceed MOST_HEAD."""


class Connection(HttpToolsProtocol):
    """A connection with limits.

    due: loop time at which an idle connection is closed, None while the service works on a request; quiet: bytes
    received since the last request or part of a body; stuck: loop time since which the client has read no response, or
    None; begun: True while headers are arriving; too_long: True after more than MOST_HEAD; working: the request in
    progress, if several requests arrived before a response.
    """

    def __init__(self, seconds: float, **uvicorns: Any) -> None:
        """seconds: limit of one request, serve.timeout_seconds. The idle limit is uvicorn's timeout_keep_alive."""
        super().__init__(**uvicorns)
        self.seconds, self.idle = seconds, self.config.timeout_keep_alive
        self.due: float | None = None
        self.stuck: float | None = None
        self.working: RequestResponseCycle | None = None
        self.quiet, self.begun, self.too_long = 0, False, False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        """Starts the idle time."""
        super().connection_made(transport)
        self.due = self.loop.time() + self.idle

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the request in progress. uvicorn ends only the last one; the first would fail with a traceback."""
        if self.working:
            self.working.disconnected = True
            self.working.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle, app):
        self.working = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """Refuses more than MOST_HEAD outside a body."""
        self.quiet += len(data)
        super().data_received(data)
        if self.quiet > MOST_HEAD and not self.transport.is_closing():
            self.too_long = True
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """Starts the time for the headers."""
        super().on_message_begin()
        self.due, self.quiet, self.begun = self.loop.time() + self.idle, 0, True

    def on_headers_complete(self) -> None:
        """Refuses headers above MOST_HEAD, else stops the idle time."""
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
            self.too_long = True
            raise TooLong  # uvicorn then calls send_400_response
        super().on_headers_complete()
        self.due, self.begun = None, False

    def on_body(self, body: bytes) -> None:
        """Resets the count of bytes outside a body."""
        super().on_body(body)
        self.quiet = 0

    def on_message_complete(self) -> None:
        """Starts the idle time if the response was sent first: the rest of a refused body has now arrived."""
        super().on_message_complete()
        self.quiet = 0
        if not self.busy():
            self.due = self.loop.time() + self.idle

    def on_response_complete(self) -> None:
        """Starts the idle time, unless uvicorn has begun with a request that arrived early."""
        super().on_response_complete()
        if not self.busy():
            self.due = self.loop.time() + (self.seconds if self.cycle.more_body else self.idle)

    def busy(self) -> bool:
        """True while a response is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    def pause_writing(self) -> None:
        """Notes since when the client reads nothing."""
        super().pause_writing()
        self.stuck = self.loop.time()

    def resume_writing(self) -> None:
        """Notes that the client reads again."""
        super().resume_writing()
        self.stuck = None

    def sweep(self, now: float) -> None:
        """Closes the connection if a time limit has passed. now: loop time in seconds."""
        if self.transport.is_closing() and self.stuck is None:
            return
        if self.stuck is not None and now - self.stuck > self.seconds:
            self.transport.abort()  # close() would wait until the client has read the whole response
        elif self.due is not None and now > self.due and not self.busy():
            if self.begun:
                self.refuse(408, f"the headers did not come within serve.idle_seconds, {self.idle:g} s")
            else:
                self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Replaces uvicorn's plain-text error for malformed HTTP by JSON, the format of all our errors."""
        if self.too_long:
            self.refuse(431, f"the request line and the headers are larger than {MOST_HEAD >> 10} kB")
        else:
            self.refuse(400, "the request is not HTTP/1.1")

    def refuse(self, status: int, message: str) -> None:
        """Sends an error for an incomplete request, and closes. Sends nothing while another response is in progress."""
        if not self.busy():
            body = app.problem(status, message)
            self.transport.write(
                STATUS_LINE[status]
                + b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (len(body), body)
            )
        self.transport.close()
