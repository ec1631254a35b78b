"""Messages between supervisor and workers: the report survives a socket, orders get a reason or ""."""

import multiprocessing
import socket
import threading

import pytest

from lakevision.serving.rest import loaded_model, protocol


@pytest.fixture
def orders(monkeypatch):
    """(the supervisor's end of the pipe, list of the loaded versions, thread of obey()).

    loaded_model.load is replaced: a version whose folder is "broken" fails.
    """

    def load(version, max_rows):
        if version.folder == "broken":
            raise OSError("no card.json\nsecond line")
        return loaded_model.Loaded(version.number, None, None, {"max_rows": max_rows})

    monkeypatch.setattr(loaded_model, "load", load)
    ours, theirs = multiprocessing.Pipe()
    changes = []
    thread = threading.Thread(target=protocol.obey, args=(theirs, 9, changes.append))
    thread.start()
    yield ours, changes, thread
    ours.close()
    thread.join(5)


def order(pipe, number, folder=""):
    """Orders a version. Returns the answer."""
    pipe.send(loaded_model.Version("lakevision", number, "champion", folder))
    assert pipe.poll(5)
    return pipe.recv()


def test_report_round_trip_takes_the_last_of_several():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for received, still_open in ((1, 1), (70_000, 499)):
            theirs.send(protocol.REPORT.pack(received, still_open))
        data = ours.recv(protocol.REPORT.size * 100)
    assert protocol.REPORT.unpack(data[-protocol.REPORT.size :]) == (70_000, 499)


def test_ordered_version_is_loaded_and_confirmed(orders):
    pipe, changes, _ = orders
    assert order(pipe, "2") == ""
    assert [(loaded.number, loaded.info) for loaded in changes] == [("2", {"max_rows": 9})]


def test_broken_version_gets_a_reason_and_the_next_one_loads(orders):
    pipe, changes, _ = orders
    assert order(pipe, "2", "broken") == "OSError: no card.json" and changes == []
    assert order(pipe, "3") == "" and [loaded.number for loaded in changes] == ["3"]


def test_obey_ends_with_the_supervisor(orders):
    pipe, _, thread = orders
    pipe.close()
    thread.join(5)
    assert not thread.is_alive()
