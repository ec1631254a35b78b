"""Words to systemd, sd_notify(3) in the standard library: READY=1, WATCHDOG=1, STATUS=... Silent where systemd is not the parent."""

import os
import socket
import sys


def notify(*lines):
    """Sends lines like "READY=1". Does nothing without NOTIFY_SOCKET; an unreachable socket is said once per call on stderr."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.sendto("\n".join(lines).encode(), address)
        except OSError as error:  # a frame matters more than the word about it
            print(f"systemd did not hear {lines[0]}: {error}", file=sys.stderr, flush=True)


def watchdog_s():
    """Seconds after which systemd loses patience, None without a watchdog for this process."""
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(os.environ.get("WATCHDOG_USEC", "0")) / 1e6 or None
