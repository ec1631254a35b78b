"""Runs uvicorn in a worker on the connections from the supervisor, and stops without losing a request."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import signal
import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

import uvicorn

from lakevision.serving.rest import app, http_limits, protocol
from lakevision.serving.rest.batcher import Batcher

if TYPE_CHECKING:
    from lakevision.serving.rest.loaded_model import Loaded
    from lakevision.serving.rest.main import Plan

FAREWELL = 1.0  # seconds in which the next response on an open connection closes the connection


class Server(uvicorn.Server):
    """uvicorn's server with three differences.

    Connections come from the socket `control` instead of accept(). SIGTERM ends the server with status 0. Clients with
    an open connection get the response to the request that they are sending.
    """

    def __init__(self, settings: uvicorn.Config, state: app.State, control: socket.socket) -> None:
        super().__init__(settings)
        self.state, self.control = state, control
        self.taken, self.reported = 0, b""
        self.arriving: set[asyncio.Task] = set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handles SIGTERM only."""
        signal.signal(signal.SIGTERM, self.handle_exit)  # uvicorn's own raises the signal again at the end
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts without a listening socket."""
        await super().startup(sockets=[])
        self.control.setblocking(False)
        asyncio.get_running_loop().add_reader(self.control, self.take)

    def take(self) -> None:
        """Starts serving all connections that have arrived. Each read returns one connection."""
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, descriptors, _, _ = socket.recv_fds(self.control, 64, 64)
            except BlockingIOError:
                return
            if not data:
                loop.remove_reader(self.control)  # the parent is gone; worker_process.work ends this process
                return
            self.taken += len(data)
            for descriptor in descriptors:
                made = loop.create_task(loop.connect_accepted_socket(self._protocol, socket.socket(fileno=descriptor)))
                self.arriving.add(made)
                made.add_done_callback(self.arriving.discard)

    def _protocol(self):
        return http_limits.Connection(
            self.state.timeout, config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    async def on_tick(self, counter: int) -> bool:
        """Reports changed connection counts, and closes overdue connections once a second."""
        report = protocol.REPORT.pack(self.taken, len(self.server_state.connections) + len(self.arriving))
        if report != self.reported:
            # If the socket is full, the next tick reports. If it is broken, the parent is gone and this process ends.
            with contextlib.suppress(OSError):
                self.control.send(report)
                self.reported = report
        if counter % 10 == 0:  # once a second
            now = asyncio.get_running_loop().time()
            for connection in list(self.server_state.connections):
                if isinstance(connection, http_limits.Connection):
                    connection.sweep(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Takes the last connections, gives clients FAREWELL seconds to close, then shuts down."""
        loop = asyncio.get_running_loop()
        self.take()
        loop.remove_reader(self.control)
        while self.arriving:
            await asyncio.sleep(0.01)
        self.state.stopping.set()
        ends = loop.time() + FAREWELL
        while self.server_state.connections and loop.time() < ends:
            await asyncio.sleep(0.02)
        await super().shutdown()


def serve(plan: Plan, loaded: Loaded, control: socket.socket, orders: Connection) -> None:
    """Serves until SIGTERM.

    control: connections come down, reports go up, and the first report means ready; orders: see protocol.obey().
    """
    cfg = plan.cfg.serve
    state = app.State(loaded, Batcher(plan.threads), cfg.max_request_mb << 20, cfg.max_rows, cfg.timeout_seconds)
    settings = uvicorn.Config(
        app.app(state, plan.threads),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=cfg.idle_seconds,  # type: ignore[arg-type]  # uvicorn takes fractions, too
        timeout_graceful_shutdown=max(1, int(cfg.stop_seconds)),
    )
    change = functools.partial(setattr, state, "current")
    threading.Thread(target=protocol.obey, args=(orders, cfg.max_rows, change), daemon=True).start()
    Server(settings, state, control).run()
    state.batcher.stop()
