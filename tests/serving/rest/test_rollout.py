"""Changes of a running service's version: under load, with a broken version, with the registry down."""

import http.client
import json
import queue
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import rest_service
from rest_load import Load, ask_on, clients, downloads, spoilt
from rest_service import GOOD, expected, same, until, workers

from lakevision.registry import model_registry
from lakevision.serving.rest import loaded_model, rollout, supervisor


def test_pause_doubles_up_to_an_hour():
    pause = rollout.Pause()
    assert pause.over()
    assert [pause.longer() for _ in range(9)] == [30, 60, 120, 240, 480, 960, 1920, 3600, 3600] and not pause.over()


def version(number, folder=""):
    return loaded_model.Version("lakevision", number, "champion", str(folder))


def running(*versions):
    """Workers that serve the versions. Their orders are kept in a queue."""
    return [
        supervisor.Worker(SimpleNamespace(pid=pid), None, SimpleNamespace(send=queue.Queue().put), served, ready=True)
        for pid, served in enumerate(versions)
    ]


def test_one_worker_tries_a_version_before_all_load_it():
    old, new = version("1"), version("2")
    state, workers_of_old = rollout.Rollout(old), running(old, old)
    first, second = workers_of_old
    state.asked.put(new)
    for _ in range(2):  # no second order while a worker loads
        rollout.order(state, workers_of_old)
        assert (first.loading, second.loading) == (new, None)
    rollout.loaded(state, first, "")
    assert (state.good, state.offered, state.verdict.get_nowait()) == (new, None, "") and list(state.old) == [old]
    rollout.order(state, workers_of_old)
    rollout.loaded(state, second, "")
    assert first.version == second.version == new and state.verdict.empty()


@pytest.mark.parametrize("dies", [False, True], ids=["cannot be loaded", "kills the worker"])
def test_offered_version_that_fails_is_removed_and_reported(tmp_path, dies):
    (tmp_path / "model").mkdir()
    old, new = version("1"), version("2", tmp_path / "model")
    state, workers_of_old = rollout.Rollout(old), running(old)
    state.asked.put(new)
    rollout.order(state, workers_of_old)
    if dies:
        rollout.died(state, workers_of_old[0])
    else:
        rollout.loaded(state, workers_of_old[0], "no card.json")
    assert state.verdict.get_nowait() == ("the worker that tried it died" if dies else "no card.json")
    assert (state.good, state.offered, workers_of_old[0].version) == (old, None, old)
    assert not Path(new.folder).exists()


def test_worker_that_fails_to_load_a_good_version_waits(capfd):
    old, good = version("1"), version("2")
    state, workers_of_both = rollout.Rollout(good), running(old, good)
    behind = workers_of_both[0]
    rollout.order(state, workers_of_both)
    rollout.loaded(state, behind, "out of memory")
    assert behind.version == old
    assert "worker 0 keeps version 1, out of memory; next try in 30 s" in capfd.readouterr().err
    rollout.order(state, workers_of_both)
    assert behind.loading is None  # until the pause is over


def test_files_are_removed_once_no_worker_has_used_them_for_long(tmp_path):
    old, good = version("1", tmp_path / "old"), version("2", tmp_path / "good")
    for folder in (old.folder, good.folder):
        Path(folder).mkdir()
    state = rollout.Rollout(good, old={old: time.monotonic() - 100})
    rollout.tidy(state, running(old, good), 10)
    assert Path(old.folder).exists() and time.monotonic() - state.old[old] < 50  # in use: the time starts again
    state.old[old] = time.monotonic() - 100
    rollout.tidy(state, running(good), 10)
    assert not Path(old.folder).exists() and state.old == {} and Path(good.folder).exists()


def versions(service):
    """Returns the versions reported on eight connections in a row. Each worker gets some of the connections."""
    open_ones = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=60) for _ in range(8)]
    found = set()
    for one in open_ones:
        one.request("GET", "/version")
        found.add(json.loads(one.getresponse().read())["version"])
    for one in open_ones:
        one.close()
    return found


def replaced(service, victim):
    """Kills a worker and waits for its replacement."""
    victim.kill()
    until(
        lambda: victim.pid not in {one.pid for one in workers(service)} and len(workers(service)) == 2, 60, service.log
    )


@pytest.mark.service
@pytest.mark.kill
def test_version_change_under_load_loses_no_request(registered, tmp_path):
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
                # One worker may answer twenty requests in a row; the connections of the load are with both workers.
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
    numbers = [
        next((number for number in wanted if same(found["predictions"][0], wanted[number])), "?")
        for _, found in load.rows
    ]
    assert (
        {status for status, _ in load.rows} == {200} and set(numbers) == {"1", "2"} and numbers[0] == numbers[-1] == "1"
    )


@pytest.mark.service
@pytest.mark.kill
def test_registry_down_is_logged_once_and_stops_nothing(registered, tmp_path):
    cfg, models = registered
    database = Path(cfg.storage.root, "mlflow.db")
    model_registry.set_alias(cfg, "champion", "1")
    with rest_service.serving(cfg, tmp_path / "log", "serve.reload_seconds=0.2", "serve.workers=1") as service:
        whole = database.read_bytes()
        try:
            # Overwrite the file: a process with an open database would go on reading a renamed one.
            database.write_bytes(b"no database at all" * 100)
            deadline = time.monotonic() + 30
            while "keeps version 1" not in service.log():
                assert time.monotonic() < deadline and service.ask(GOOD["grey"])[0] == 200
                time.sleep(0.1)
            time.sleep(1.5)
            assert service.log().count("keeps version 1") == 1 and service.ask(GOOD["grey"])[0] == 200
        finally:
            database.write_bytes(whole)


@pytest.mark.service
@pytest.mark.kill
def test_replacement_loads_current_version_with_registry_down(registered, tmp_path):
    cfg, _ = registered
    database = Path(cfg.storage.root, "mlflow.db")
    model_registry.set_alias(cfg, "champion", "2")
    whole = database.read_bytes()
    try:
        with rest_service.serving(cfg, tmp_path / "log", "serve.reload_seconds=0.2") as service:
            assert versions(service) == {"2"}
            model_registry.set_alias(cfg, "champion", "1")
            until(lambda: versions(service) == {"1"}, 60, service.log)
            whole = database.read_bytes()
            # Overwrite the file: a process with an open database would go on reading a renamed one.
            database.write_bytes(b"no database at all" * 100)
            until(lambda: "keeps version 1" in service.log(), 30, service.log)
            old = {one.pid for one in workers(service)}
            for victim in workers(service):
                replaced(service, victim)
            until(lambda: not old & {one.pid for one in workers(service)}, 60, service.log)
            ends = time.monotonic() + 8
            while time.monotonic() < ends:
                assert versions(service) == {"1"}
    finally:
        database.write_bytes(whole)
        model_registry.set_alias(cfg, "champion", "1")


@pytest.mark.service
@pytest.mark.kill
def test_broken_version_is_downloaded_once_and_removed(registered, tmp_path):
    cfg, _ = registered
    model_registry.set_alias(cfg, "champion", "1")
    run = {version.run_id: number for number in ("1", "2") for version in [registered_version(cfg, number)]}
    cards = [card for card in Path(cfg.storage.root, "mlartifacts").rglob("card.json") if belongs(card, run, "2")]
    assert len(cards) == 1
    try:
        with rest_service.serving(
            cfg, tmp_path / "log", "serve.reload_seconds=0.2", "serve.timeout_seconds=2"
        ) as service:
            first = downloads(service)
            with spoilt(*cards):
                model_registry.set_alias(cfg, "champion", "2")
                until(lambda: "keeps version 1" in service.log(), 60, service.log)
                time.sleep(3)  # fifteen polls
                assert downloads(service) == first and versions(service) == {"1"}
                assert service.log().count("version 2 can't be loaded") == 1
            model_registry.set_alias(cfg, "champion", "1")  # the alias moves away and back; the version is intact now
            time.sleep(1)
            model_registry.set_alias(cfg, "champion", "2")
            until(lambda: versions(service) == {"2"}, 60, service.log)
            until(lambda: len(downloads(service)) == 1 and downloads(service) != first, 30, service.log)
            for victim in workers(service)[:1]:
                replaced(service, victim)
            until(lambda: len(workers(service)) == 2, 30, service.log)
            assert versions(service) == {"2"} and service.ask(GOOD["jpeg"])[0] == 200
        assert list(tmp_path.glob("lakevision-serve-*")) == [] and not psutil.pid_exists(service.process.pid)
    finally:
        model_registry.set_alias(cfg, "champion", "1")


def registered_version(cfg, number):
    from mlflow import MlflowClient

    return MlflowClient().get_model_version(model_registry.name(cfg), number)


def belongs(card, run, number):
    """True if a card is a file of this version's model: the MLmodel beside it names the run."""
    text = (card.parents[1] / "MLmodel").read_text()
    return any(run[one] == number and one in text for one in run)
