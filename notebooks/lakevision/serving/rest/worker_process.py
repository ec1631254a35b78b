"""A worker process, from its start until it serves. The heavy imports come after the signal handlers."""

import logging
import multiprocessing
import os
import signal
import sys
import threading

from lakevision.serving.rest import loaded_model

log = logging.getLogger("lakevision.serve")


def work(plan, control, orders):
    """A worker process: loads the version, serves the connections that come down `control`, until SIGTERM. orders: pipe of versions to change to."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # until the server takes over there is nothing to finish
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
    except Exception as error:  # anything that a model's files can raise
        log.error("version %s can't be loaded: %s", plan.version.number, loaded_model.first_line(error))
        sys.exit(1)
    worker.serve(plan, loaded, control, orders)


def _follow_parent():
    multiprocessing.parent_process().join()
    os.kill(os.getpid(), signal.SIGTERM)
