"""The REST service under load: what is stopped, killed, exchanged or sent rubbish costs no request."""

import json
import os
import random
import re
import signal
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import rest_service  # noqa: E402
from rest_service import BAD, GOOD, SECRET, expected, same  # noqa: E402

from lakevision.registry import model_registry
from lakevision.serving.rest import client

HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
SOAK = bool(os.environ.get("LAKEVISION_SOAK"))
pytestmark = [pytest.mark.service, pytest.mark.kill]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    return rest_service.registered(tmp_path_factory.mktemp("serve"))


@dataclass
class Load:
    """What clients have seen. rows: predictions; lost: what went wrong, in words; told: connections that the service said it would close."""

    rows: list = field(default_factory=list)
    lost: list = field(default_factory=list)
    told: int = 0
    stop: threading.Event = field(default_factory=threading.Event)


def exchange(connection, data):
    """(status, JSON, whether the connection stays open) for one image. Raises OSError where the connection breaks before the answer is whole."""
    connection.sendall(HEAD % len(data) + data)
    with connection.makefile("rb") as stream:
        status = stream.readline()
        if not status:
            raise ConnectionError("closed without an answer")
        headers = {}
        while (line := stream.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        body = stream.read(int(headers["content-length"]))
        if len(body) != int(headers["content-length"]):
            raise ConnectionError("half an answer")
    return int(status.split()[1]), json.loads(body, parse_constant=pytest.fail), headers.get("connection") != "close"


def ask_on(port, load, data):
    """Asks again and again on one connection until load.stop, or until the service says that it closes it."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        while not load.stop.is_set():
            try:
                status, found, stays = exchange(connection, data)
            except OSError as error:
                load.lost.append(repr(error))
                return
            load.rows.append((status, found))
            if not stays:
                load.told += 1
                return
            time.sleep(
                0.03
            )  # so that some connections are idle when a stop comes: their next request must be answered, too


def clients(count, target, *arguments):
    threads = [threading.Thread(target=target, args=arguments) for _ in range(count)]
    for thread in threads:
        thread.start()
    return threads


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT to the group"])
def test_a_stop_under_load_loses_no_request_and_ends_with_0(registered, tmp_path, number):
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
        time.sleep(1.5)  # longer than connections without a request are waited for
        slow.sendall(data[500:])
        assert b" 200 " in slow.recv(65536).split(b"\r\n")[0]
        assert service.process.wait(30) == 0
    assert load.lost == [] and load.told == 6 and len(load.rows) > 20
    wanted = expected(registered[1]["1"], GOOD["large"])
    assert all(status == 200 and same(found["predictions"][0], wanted) for status, found in load.rows)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", service.port))
    assert "Traceback" not in service.log()


def test_rollback_and_promotion_under_load_change_the_answers_and_lose_none(registered, tmp_path):
    cfg, models = registered
    model_registry.set_alias(cfg, "champion", "1")
    wanted = {number: expected(model, GOOD["grey"]) for number, model in models.items()}
    assert abs(wanted["1"][1] - wanted["2"][1]) > 1e-3
    with rest_service.serving(cfg, tmp_path / "log", "serve.reload_seconds=0.2") as service:
        load = Load()
        threads = clients(4, ask_on, service.port, load, GOOD["grey"])
        try:
            for number in ("2", "1"):
                model_registry.set_alias(cfg, "champion", number)
                deadline, seen = time.monotonic() + 180, 0
                # Which worker answers is the kernel's choice: one may take twenty in a row, the clients' connections are with both.
                while seen < 20 or not all(
                    same(found["predictions"][0], wanted[number]) for status, found in load.rows[-40:] if status == 200
                ):
                    found = service.ask(None, None, "/version", "GET")[1]
                    seen = (
                        seen + 1
                        if found["version"] == number and found["run_id"] == models[number].metadata.run_id
                        else 0
                    )
                    assert time.monotonic() < deadline, service.log()
        finally:
            load.stop.set()
            for thread in threads:
                thread.join(30)
    assert load.lost == []
    said = [
        next((number for number in wanted if same(found["predictions"][0], wanted[number])), "?")
        for _, found in load.rows
    ]
    assert {status for status, _ in load.rows} == {200} and set(said) == {"1", "2"} and said[0] == said[-1] == "1"


def test_a_registry_that_goes_down_is_logged_once_and_stops_nothing(registered, tmp_path):
    cfg, models = registered
    database = Path(cfg.storage.root, "mlflow.db")
    model_registry.set_alias(cfg, "champion", "1")
    with rest_service.serving(cfg, tmp_path / "log", "serve.reload_seconds=0.2", "serve.workers=1") as service:
        whole = database.read_bytes()
        try:
            database.write_bytes(
                b"no database at all" * 100
            )  # in its place: who has it open would go on reading one that was only renamed
            deadline = time.monotonic() + 30
            while "keeps version 1" not in service.log():
                assert time.monotonic() < deadline and service.ask(GOOD["grey"])[0] == 200
                time.sleep(0.1)
            time.sleep(1.5)
            assert service.log().count("keeps version 1") == 1 and service.ask(GOOD["grey"])[0] == 200
        finally:
            database.write_bytes(whole)


def test_without_reload_it_keeps_its_version_also_in_a_worker_that_replaces_a_killed_one(registered, tmp_path):
    cfg, models = registered
    model_registry.set_alias(cfg, "champion", "1")
    with rest_service.serving(cfg, tmp_path / "log") as service:
        model_registry.set_alias(cfg, "champion", "2")
        victim = rest_service.workers(service)[0]
        victim.kill()
        deadline = time.monotonic() + 60
        while (
            victim.pid in {one.pid for one in rest_service.workers(service)} or len(rest_service.workers(service)) < 2
        ):
            assert time.monotonic() < deadline, service.log()
            time.sleep(0.1)
        wanted = expected(models["1"], GOOD["grey"])
        until = time.monotonic() + 8  # long enough for the new one to come
        while time.monotonic() < until:
            status, found, _ = service.ask(GOOD["grey"])
            assert (
                status == 200
                and same(found["predictions"][0], wanted)
                and service.ask(None, None, "/version", "GET")[1]["version"] == "1"
            )
        assert f"worker {victim.pid} ended with status -9" in service.log()
    model_registry.set_alias(cfg, "champion", "1")


def test_a_version_by_its_number_and_workers_that_end_with_their_parent(registered, tmp_path):
    with rest_service.serving(registered[0], tmp_path / "log", arguments=("--version", "2")) as service:
        found = service.ask(None, None, "/version", "GET")[1]
        assert (found["version"], found["alias"]) == ("2", "")
        assert same(service.ask(GOOD["grey"])[1]["predictions"][0], expected(registered[1]["2"], GOOD["grey"]))
        left = rest_service.workers(service)
        service.process.kill()
        assert len(left) == 2 and not psutil.wait_procs(left, timeout=20)[1]


def mixed(port, load, seed, ends):
    """Good and bad requests until `ends`, on connections that are kept, opened anew, or broken off by the client."""
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
        load.told += 1
    porch.close()


def test_mixed_good_and_bad_load_loses_nothing_leaks_nothing_and_logs_no_payload(registered, tmp_path):
    model_registry.set_alias(registered[0], "champion", "1")
    wanted = {name: expected(registered[1]["1"], data) for name, data in GOOD.items()}
    with rest_service.serving(registered[0], tmp_path / "log") as service:
        found = []
        for seconds in (10, 60) if SOAK else (3, 5):  # the first is to warm up
            load = Load()
            ends = time.monotonic() + seconds
            threads = [threading.Thread(target=mixed, args=(service.port, load, seed, ends)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(seconds + 60)
            assert load.lost == [] and load.told > 50
            assert all(same(row, wanted[name]) for name, row in load.rows)
            found.append([one.memory_info().rss for one in rest_service.workers(service)])
        assert all(later < before * 1.1 + 30e6 for before, later in zip(*found)), found
        assert service.process.poll() is None and all(one.is_running() for one in rest_service.workers(service))
    assert service.process.returncode == 0 and SECRET[:6] not in service.log() and "Traceback" not in service.log()


def test_restart_pauses_double_from_one_second_to_one_minute(monkeypatch, capfd):
    from types import SimpleNamespace

    from lakevision.serving.rest import main, supervisor

    assert (supervisor.PAUSE, supervisor.LONGEST_PAUSE, supervisor.TRIES) == (1.0, 60.0, 5)
    plan = main.Plan(SimpleNamespace(serve=SimpleNamespace(stop_seconds=1)), None, "", 2, 1)
    monkeypatch.setattr(supervisor, "end", lambda *_: 0)
    watched = supervisor.Supervisor(plan, None, None)
    monkeypatch.setattr(supervisor.rollout, "died", lambda *_: None)
    monkeypatch.setattr(watched.selector, "unregister", lambda _: None)
    watched.greeted = True
    serves = supervisor.Worker(None, None, None, None, ready=True)
    for number in range(8):
        process = SimpleNamespace(pid=number, exitcode=1)
        watched.running = [serves, lost := supervisor.Worker(process, None, None, None)]
        assert watched.replace(lost)
    pauses = [float(seconds) for seconds in re.findall(r"starts another in (\S+) s", capfd.readouterr().err)]
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
