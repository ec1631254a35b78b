"""uvicorn in a worker of the REST service: on the connections that it is given, with an end that loses no request."""

import asyncio
import contextlib
import functools
import signal
import socket
import threading

import uvicorn

from lakevision.serving.rest import app, http_limits, protocol
from lakevision.serving.rest.batcher import Batcher

FAREWELL = 1.0  # seconds in which connections that stay open are told, by the answer to their next request, to close


class Server(uvicorn.Server):
    """uvicorn's, but that connections come down a socket instead of being accepted, that SIGTERM ends it with status 0, and that clients whose
    connection stays open get the answer to what they are sending. control: that socket; state: app.State."""

    def __init__(self, settings, state, control):
        super().__init__(settings)
        self.state, self.control = state, control
        self.taken, self.told, self.arriving = 0, None, set()

    @contextlib.contextmanager
    def capture_signals(self):
        signal.signal(signal.SIGTERM, self.handle_exit)  # uvicorn's own raises the signal again at the end
        yield

    async def startup(self, sockets=None):
        await super().startup(sockets=[])  # listens nowhere
        self.control.setblocking(False)
        asyncio.get_running_loop().add_reader(self.control, self.take)

    def take(self):
        """Starts serving all the connections that have come down. A read returns one, however many wait: each is a message of its own."""
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

    async def on_tick(self, counter):
        report = protocol.REPORT.pack(self.taken, len(self.server_state.connections) + len(self.arriving))
        if report != self.told:
            with contextlib.suppress(
                OSError
            ):  # full: the next tick says it; broken: the parent is gone, which ends this process
                self.control.send(report)
                self.told = report
        if counter % 10 == 0:  # once a second
            now = asyncio.get_running_loop().time()
            for one in list(self.server_state.connections):
                one.sweep(now)
        return await super().on_tick(counter)

    async def shutdown(self, sockets=None):
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


def serve(plan, loaded, control, orders):
    """Serves until SIGTERM. plan: rest_main.Plan; loaded: loaded_model.Loaded; control: socket, connections come down, reports go up, the first says ready;
    orders: pipe, see protocol.obey()."""
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
        timeout_keep_alive=cfg.idle_seconds,
        timeout_graceful_shutdown=max(1, int(cfg.stop_seconds)),
    )
    change = functools.partial(setattr, state, "current")
    threading.Thread(target=protocol.obey, args=(orders, cfg.max_rows, change), daemon=True).start()
    Server(settings, state, control).run()
    state.batcher.stop()
