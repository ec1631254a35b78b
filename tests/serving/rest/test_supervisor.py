"""The supervisor deals connections evenly, replaces dead workers and gives up if none can serve."""

import json
import os
import random
import re
import socket
import threading
import time
from types import SimpleNamespace

import pytest
import rest_service
from rest_load import Load, downloads, spoilt
from rest_service import BAD, GOOD, HEAD, SECRET, expected, same, until, workers

from lakevision.registry import model_registry
from lakevision.serving.rest import client, main, supervisor

SOAK = bool(os.environ.get("LAKEVISION_SOAK"))


@pytest.mark.service
def test_connections_one_after_another_are_dealt_evenly(registered, tmp_path):
    def counts():
        return [
            sum(connection.status == "ESTABLISHED" for connection in process.net_connections("inet"))
            for process in workers(service)
        ]

    with rest_service.serving(registered[0], tmp_path / "log") as service:
        connections = []
        for _ in range(6):
            connections.append(socket.create_connection(("127.0.0.1", service.port)))
            time.sleep(0.25)
        dealt = counts()
        for connection in connections:
            connection.close()
    assert dealt == [3, 3]


@pytest.mark.service
@pytest.mark.kill
def test_replacement_that_dies_while_loading_stops_no_worker(registered, tmp_path):
    model_registry.set_alias(registered[0], "champion", "1")
    with rest_service.serving(registered[0], tmp_path / "log") as service:
        victim, healthy = workers(service)
        with spoilt(*(folder / "artifacts" / "card.json" for folder in downloads(service))):
            victim.kill()
            until(lambda: service.log().count("before it served") == 2, 60, service.log)
            assert (
                "starts another in 1 s; 1 of 2 workers serve" in service.log()
                and "starts another in 2 s" in service.log()
            )
            assert service.ask(GOOD["jpeg"])[0] == 200 and healthy.is_running()
        until(lambda: len(workers(service)) == 2, 30, service.log)
        time.sleep(6)
        assert (
            len(workers(service)) == 2
            and service.log().count("before it served") <= 3
            and service.process.poll() is None
        )
    assert service.process.returncode == 0


@pytest.mark.service
@pytest.mark.kill
def test_service_gives_up_after_five_failed_replacements(registered, tmp_path):
    with (
        rest_service.serving(registered[0], tmp_path / "log", "serve.workers=1", short_pauses=True) as service,
        spoilt(*(folder / "artifacts" / "card.json" for folder in downloads(service))),
    ):
        workers(service)[0].kill()
        assert service.process.wait(150) == 1
    assert (
        "gives up: 5 workers in a row, and none serves" in service.log() and "starts another in 0.8 s" in service.log()
    )


@pytest.mark.service
@pytest.mark.kill
def test_replacement_keeps_the_version_without_reload(registered, tmp_path):
    cfg, models = registered
    model_registry.set_alias(cfg, "champion", "1")
    with rest_service.serving(cfg, tmp_path / "log") as service:
        model_registry.set_alias(cfg, "champion", "2")
        victim = workers(service)[0]
        victim.kill()
        deadline = time.monotonic() + 60
        while victim.pid in {one.pid for one in workers(service)} or len(workers(service)) < 2:
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.1)
        wanted = expected(models["1"], GOOD["grey"])
        ends = time.monotonic() + 8  # seconds; the new worker serves within this time
        while time.monotonic() < ends:
            status, found, _ = service.ask(GOOD["grey"])
            assert (
                status == 200
                and same(found["predictions"][0], wanted)
                and service.ask(None, None, "/version", "GET")[1]["version"] == "1"
            )
        assert f"worker {victim.pid} ended with status -9" in service.log()
    model_registry.set_alias(cfg, "champion", "1")


def mixed(port, load, seed, ends):
    """Sends good and bad requests until the time `ends`. Breaks off some connections and keeps the others."""
    rng = random.Random(seed)
    porch = client.Client(f"http://127.0.0.1:{port}")
    while time.monotonic() < ends:
        kind = rng.choice(["good", "good", "good", "list", "bad", "json", "large", "hang up"])
        name = rng.choice(list(GOOD))
        try:
            if kind == "good":
                load.rows.append((name, porch.predict(GOOD[name])))
            elif kind == "list":
                names = rng.choices(list(GOOD), k=rng.randint(1, 8))
                load.rows += list(zip(names, porch.predict([GOOD[name] for name in names])))
            elif kind == "hang up":
                with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
                    connection.sendall(HEAD % 90_000 + SECRET.encode() * rng.randint(1, 1000))
            else:
                body = {
                    "bad": rng.choice(list(BAD.values())),
                    "json": json.dumps({"inputs": [SECRET], SECRET: 1})[: rng.randint(5, 60)].encode(),
                    "large": os.urandom(2_200_000),
                }[kind]
                porch._ask("POST", "/invocations", body, "application/json" if kind == "json" else "image/jpeg")
                load.lost.append(f"{kind} was accepted")
        except client.ServiceError as error:
            wanted = {"bad": 422, "json": 400, "large": 413}.get(kind)
            if error.status != wanted and not (kind == "json" and error.status in (200, 400)):
                load.lost.append(f"{kind}: {error}")
        load.made += 1
    porch.close()


@pytest.mark.service
def test_mixed_load_loses_nothing_leaks_nothing_logs_no_data(registered, tmp_path):
    model_registry.set_alias(registered[0], "champion", "1")
    wanted = {name: expected(registered[1]["1"], data) for name, data in GOOD.items()}
    with rest_service.serving(registered[0], tmp_path / "log") as service:
        memory = []
        for seconds in (10, 60) if SOAK else (3, 5):  # the first round warms up
            load = Load()
            ends = time.monotonic() + seconds
            threads = [threading.Thread(target=mixed, args=(service.port, load, seed, ends)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 60)
            assert load.lost == [] and load.made > 50
            assert all(same(row, wanted[name]) for name, row in load.rows)
            memory.append([one.memory_info().rss for one in workers(service)])
        assert all(later < before * 1.1 + 30e6 for before, later in zip(*memory)), memory
        assert service.process.poll() is None and all(one.is_running() for one in workers(service))
    assert service.process.returncode == 0 and SECRET[:6] not in service.log() and "Traceback" not in service.log()


def test_restart_pauses_double_from_one_second_to_one_minute(monkeypatch, capfd):
    assert (supervisor.PAUSE, supervisor.LONGEST_PAUSE, supervisor.TRIES) == (1.0, 60.0, 5)
    plan = main.Plan(SimpleNamespace(serve=SimpleNamespace(stop_seconds=1)), None, "", 2, 1)
    monkeypatch.setattr(supervisor, "end", lambda *_: 0)
    watched = supervisor.Supervisor(plan, None, None)
    monkeypatch.setattr(supervisor.rollout, "died", lambda *_: None)
    monkeypatch.setattr(watched.selector, "unregister", lambda _: None)
    watched.greeted = True
    serving = supervisor.Worker(None, None, None, None, ready=True)
    for number in range(8):
        process = SimpleNamespace(pid=number, exitcode=1)
        watched.running = [serving, lost := supervisor.Worker(process, None, None, None)]
        assert watched.replace(lost)
    pauses = [float(seconds) for seconds in re.findall(r"starts another in (\S+) s", capfd.readouterr().err)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
