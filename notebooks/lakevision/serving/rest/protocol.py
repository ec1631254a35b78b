"""What the supervisor and its workers exchange: reports of connections, and orders to load a version."""

import struct

from lakevision.serving.rest import loaded_model

REPORT = struct.Struct("II")  # a worker says how many connections it has been given, and how many are open


def obey(orders, max_rows, change):
    """Loads each version that comes down the pipe, hands it to change(), and says how it went: "" or why not."""
    while True:
        try:
            version = orders.recv()
        except (EOFError, OSError):
            return  # the parent is gone, which ends this process
        try:
            change(loaded_model.load(version, max_rows))
            reason = ""
        except Exception as error:  # whatever it is, the version that is loaded goes on serving
            reason = loaded_model.first_line(error)
        orders.send(reason)
