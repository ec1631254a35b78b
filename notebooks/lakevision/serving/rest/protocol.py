"""Messages between supervisor and workers: reports of connections, orders to load a version."""

import struct
from collections.abc import Callable
from multiprocessing.connection import Connection

from lakevision.serving.rest import loaded_model

REPORT = struct.Struct("II")  # connections that a worker has received, and connections open


def obey(orders: Connection, max_rows: int, change: Callable[[loaded_model.Loaded], None]) -> None:
    """Loads each version that arrives, passes it to change(), and sends back "" or the reason of a failure.

    orders: pipe from the supervisor; max_rows: largest table in one request. Returns when the supervisor is gone.
    """
    while True:
        try:
            version = orders.recv()
        except (EOFError, OSError):
            return  # the supervisor is gone; worker_process ends this process
        try:
            change(loaded_model.load(version, max_rows))
            reason = ""
        except Exception as error:  # the loaded version keeps serving, whatever the error
            reason = loaded_model.first_line(error)
        orders.send(reason)
