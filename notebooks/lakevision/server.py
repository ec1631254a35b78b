"""uvicorn in a worker of lakevision/serve.py: on a socket that all workers share, with an end that loses no request."""

import asyncio
import contextlib
import functools
import signal
import threading
import time

import uvicorn

from lakevision import served, service
from lakevision.batching import Batcher

FAREWELL = 1.0  # seconds in which connections that stay open are told, by the answer to their next request, to close


class Server(uvicorn.Server):
    """uvicorn's, but that SIGTERM ends it with status 0, and that clients with an open connection get the answer to what they are sending."""

    def __init__(self, settings, state):
        super().__init__(settings)
        self.state = state

    @contextlib.contextmanager
    def capture_signals(self):
        signal.signal(signal.SIGTERM, self.handle_exit)  # uvicorn's own raises the signal again at the end
        yield

    async def shutdown(self, sockets=None):
        await asyncio.sleep(0)  # a last turn of the loop takes in who has knocked already
        self.state.stopping.set()
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        ends = asyncio.get_running_loop().time() + FAREWELL
        while self.server_state.connections and asyncio.get_running_loop().time() < ends:
            await asyncio.sleep(0.02)
        await super().shutdown()


def run(plan, loaded, listener, ready):
    """Serves until SIGTERM. plan: serve.Plan; loaded: served.Loaded; ready: Event, set when the first request can come."""
    cfg = plan.cfg.serve
    state = service.State(loaded, Batcher(plan.threads), cfg.max_request_mb << 20, cfg.timeout_seconds)
    settings = uvicorn.Config(service.app(state, plan.threads), loop="uvloop", http="httptools", ws="none", lifespan="on", access_log=False,
                              log_level="warning", server_header=False, proxy_headers=False, timeout_keep_alive=75,
                              timeout_graceful_shutdown=int(cfg.stop_seconds) or 1)
    server = Server(settings, state)
    if cfg.reload_seconds and plan.version.alias:
        following = (plan, functools.partial(setattr, state, "current"), state.stopping)
        threading.Thread(target=served.follow, args=following, daemon=True).start()
    threading.Thread(target=_tell, args=(server, ready), daemon=True).start()
    server.run([listener])
    state.batcher.stop()


def _tell(server, ready):
    while not server.started:
        time.sleep(0.01)
    ready.set()
