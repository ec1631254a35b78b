"""Messages between the supervisor and its workers: reports of connections, and orders to load a version."""

import struct
from collections.abc import Callable
from multiprocessing.connection import Connection

from lakevision.serving.rest import loaded_model

REPORT = struct.Struct("II")  # connections that a worker has received, and connections open


def obey(orders: Connection, max_rows: int, change: Callable[[loaded_model.Loaded], None]) -> None:
    """Loads each version from the pipe, passes it to change(), and sends "" or the reason of a failure back."""
    while True:
        try:
            version = orders.recv()
        except (EOFError, OSError):
            return  # the parent is gone, which ends this process
        try:
            change(loaded_model.load(version, max_rows))
            reason = ""
        except Exception as error:  # the loaded version keeps serving, whatever the error
            reason = loaded_model.first_line(error)
        orders.send(reason)
