"""Clients that load a REST service under test, and a way to damage the files of a version."""

import contextlib
import json
import socket
import threading
import time
from dataclasses import dataclass, field

import pytest
from rest_service import HEAD


@dataclass
class Load:
    """What clients received.

    rows: (status, JSON); lost: descriptions of failed requests; closed: connections closed by the service as announced;
    made: requests of mixed(); stop: ends the clients.
    """

    rows: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    closed: int = 0
    made: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def exchange(connection, data):
    """Sends one image. Returns (status, JSON, True if the connection stays open).

    Raises OSError if the connection breaks before the response is complete.
    """
    connection.sendall(HEAD % len(data) + data)
    with connection.makefile("rb") as stream:
        status = stream.readline()
        if not status:
            raise ConnectionError("closed without a response")
        headers = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers["content-length"]))
        if len(body) != int(headers["content-length"]):
            raise ConnectionError("half a response")
    return int(status.split()[1]), json.loads(body, parse_constant=pytest.fail), headers.get("connection") != "close"


def ask_on(port, load, data):
    """Sends images on one connection until load.stop, or until the service announces that it closes the connection."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        while not load.stop.is_set():
            try:
                status, found, stays = exchange(connection, data)
            except OSError as error:
                load.lost.append(repr(error))
                return
            load.rows.append((status, found))
            if not stays:
                load.closed += 1
                return
            # Some connections are then idle when the service stops. Their next request must get a response, too.
            time.sleep(0.03)


def clients(count, target, *arguments):
    """Starts `count` threads. Returns the threads."""
    threads = [threading.Thread(target=target, args=arguments) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


@contextlib.contextmanager
def spoilt(*files):
    """Damages JSON files while the block runs."""
    whole = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.write_bytes(b"{")
        yield
    finally:
        for file, data in whole.items():
            if file.parent.exists():  # a service removes its files when it ends
                file.write_bytes(data)


def downloads(service):
    """Returns the folders with the files of versions that the service has downloaded."""
    return [folder for scratch in service.path.parent.glob("lakevision-serve-*") for folder in scratch.iterdir()]
