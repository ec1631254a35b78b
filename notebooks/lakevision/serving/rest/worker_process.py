"""Entry point of a worker process. Signal handlers are set before the heavy imports."""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from lakevision.serving.rest import loaded_model

if TYPE_CHECKING:
    from lakevision.serving.rest.main import Plan

log = logging.getLogger("lakevision.serve")


def work(plan: Plan, control: socket.socket, orders: Connection) -> None:
    """Loads plan.version and serves the connections from `control` until SIGTERM or the end of the parent.

    orders: pipe of new versions, see protocol.obey(). Exits with status 1 if the version cannot be loaded.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # before the server starts there is nothing to finish
    logging.basicConfig(
        level=logging.WARNING, format=f"%(asctime)s worker {os.getpid()}: %(message)s", stream=sys.stderr
    )
    threading.Thread(target=_follow_parent, daemon=True).start()
    from lakevision.serving.rest import worker
    from lakevision.training import loop

    loop.limit_threads(1)
    loaded_model.limit_pixels(plan.cfg.serve.max_megapixels)
    try:
        loaded = loaded_model.load(plan.version, plan.cfg.serve.max_rows)
    except Exception as error:  # a model's files can raise any error
        log.error("version %s can't be loaded: %s", plan.version.number, loaded_model.first_line(error))
        sys.exit(1)
    worker.serve(plan, loaded, control, orders)


def _follow_parent():
    """Waits until the parent has ended, then ends this process with SIGTERM."""
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
