"""A worker's shutdown: no request is lost, whether under load or still in the supervisor's socket."""

import asyncio
import os
import signal
import socket
import time

import pytest
import rest_service
import uvicorn
from rest_load import Load, ask_on, clients
from rest_service import GOOD, HEAD, expected, same

from lakevision.serving.rest import app, loaded_model, worker
from lakevision.serving.rest.batcher import Batcher


@pytest.mark.service
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT to the group"])
def test_stop_under_load_loses_no_request_and_ends_with_0(registered, tmp_path, number):
    data = GOOD["jpeg"]
    with (
        rest_service.serving(registered[0], tmp_path / "log") as service,
        socket.create_connection(("127.0.0.1", service.port), timeout=30) as slow,
    ):
        load = Load()
        threads = clients(6, ask_on, service.port, load, GOOD["large"])
        slow.sendall(HEAD % len(data) + data[:500])
        time.sleep(1.5)
        os.kill(service.process.pid, number) if number == signal.SIGTERM else os.killpg(service.process.pid, number)
        for thread in threads:
            thread.join(30)
        time.sleep(1.5)  # longer than worker.FAREWELL, after which idle connections are closed
        slow.sendall(data[500:])
        assert b" 200 " in slow.recv(65536).split(b"\r\n")[0]
        assert service.process.wait(30) == 0
    assert load.lost == [] and load.closed == 6 and len(load.rows) > 20
    wanted = expected(registered[1]["1"], GOOD["large"])
    assert all(status == 200 and same(found["predictions"][0], wanted) for status, found in load.rows)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port))
    assert "Traceback" not in service.log()


def test_stop_serves_connections_still_in_the_socket():
    async def stopped():
        ours, theirs = socket.socketpair()
        state = app.State(loaded_model.Loaded("7", None, None, {"version": "7"}), Batcher(1), 1 << 20, 9, 5.0)
        settings = uvicorn.Config(app.app(state, 1), http="httptools", ws="none", access_log=False, log_level="warning")
        settings.load()
        server = worker.Server(settings, state, theirs)
        server.lifespan = settings.lifespan_class(settings)
        await server.startup()
        clients = []
        for _ in range(5):  # one message each, as supervisor.deal() sends them; the server reads none before shutdown()
            client, accepted = socket.socketpair()
            client.settimeout(5)
            client.sendall(b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n")
            socket.send_fds(ours, [b"c"], [accepted.fileno()])
            accepted.close()
            clients.append(client)
        await server.shutdown()
        return [client.recv(4096)[:13] for client in clients]

    assert asyncio.run(stopped()) == [b"HTTP/1.1 200 "] * 5
