"""Adds limits of size and time to uvicorn's httptools connection, which leaves them to a proxy.

Without limits, a client that sends nothing, or an endless header, occupies a worker's slot and memory indefinitely. The
limits of a body are serve.max_request_mb and serve.timeout_seconds: see app.py.
"""

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from lakevision.serving.rest import app

# Bytes of a request line and its headers, or of anything else outside a body. Browsers and proxies send 1 to 8 kB.
MOST_HEAD = 32 << 10


class TooLong(Exception):
    """More than MOST_HEAD."""


class Connection(HttpToolsProtocol):
    """A connection with limits.

    due: loop time at which an idle connection is closed, None while the service works on a request; quiet: bytes
    received since the last request or part of a body; stuck: loop time since which the client has read no response, or
    None; working: the request in progress, if several arrived before a response.
    """

    def __init__(self, seconds, **uvicorns):
        """seconds: of one request, serve.timeout_seconds; the idle ones are uvicorn's timeout_keep_alive."""
        super().__init__(**uvicorns)
        self.seconds, self.idle = seconds, self.config.timeout_keep_alive
        self.due, self.quiet, self.stuck, self.begun, self.too_long, self.working = None, 0, None, False, False, None

    def connection_made(self, transport):
        super().connection_made(transport)
        self.due = self.loop.time() + self.idle

    def connection_lost(self, exc):
        if self.working:
            self.working.disconnected = (
                True  # uvicorn tells the last request only, and the first one's answer would fail with a traceback
            )
            self.working.message_event.set()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle, app):
        self.working = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data):
        self.quiet += len(data)
        super().data_received(data)
        if self.quiet > MOST_HEAD and not self.transport.is_closing():
            self.too_long = True
            self.send_400_response("")

    def on_message_begin(self):
        super().on_message_begin()
        self.due, self.quiet, self.begun = self.loop.time() + self.idle, 0, True

    def on_headers_complete(self):
        if len(self.url) + sum(len(name) + len(value) for name, value in self.headers) > MOST_HEAD:
            self.too_long = True
            raise TooLong  # which uvicorn answers by send_400_response
        super().on_headers_complete()
        self.due, self.begun = None, False

    def on_body(self, body):
        super().on_body(body)
        self.quiet = 0

    def on_message_complete(self):
        super().on_message_complete()
        self.quiet = 0
        if not self.busy():
            self.due = self.loop.time() + self.idle  # what is left of a body that was refused has come

    def on_response_complete(self):
        super().on_response_complete()
        if not self.busy():  # else it has begun with the next request, which came early
            self.due = self.loop.time() + (self.seconds if self.cycle.more_body else self.idle)

    def busy(self) -> bool:
        """True while a response is in progress."""
        return self.cycle is not None and not self.cycle.response_complete

    def pause_writing(self):
        super().pause_writing()
        self.stuck = self.loop.time()

    def resume_writing(self):
        super().resume_writing()
        self.stuck = None

    def sweep(self, now: float) -> None:
        """Closes the connection if its time has run out. now: loop time."""
        if self.transport.is_closing() and self.stuck is None:
            return
        if self.stuck is not None and now - self.stuck > self.seconds:
            self.transport.abort()  # close() would wait until the client has read what it does not read
        elif self.due is not None and now > self.due and not self.busy():
            if self.begun:
                self.refuse(408, f"the headers did not come within serve.idle_seconds, {self.idle:g} s")
            else:
                self.transport.close()

    def send_400_response(self, msg):
        """uvicorn's answer to what is not HTTP, in JSON as all of ours."""
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
