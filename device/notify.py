"""Messages to systemd: READY=1, WATCHDOG=1, STATUS=... (sd_notify(3) with the standard library)."""

from __future__ import annotations

import os
import socket
import sys


def notify(*lines: str) -> None:
    """Sends lines like "READY=1". Does nothing without NOTIFY_SOCKET; prints to stderr if the socket is unreachable."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), address)
        except OSError as error:  # go on: a frame matters more than the message about it
            print(f"cannot send {lines[0]} to systemd: {error}", file=sys.stderr, flush=True)


def watchdog_s() -> float | None:
    """The watchdog's time limit in seconds; None if systemd set no watchdog for this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or None
