"""The REST service's workers and versions where something fails: a worker that can't load, a version that can't be loaded, a registry that is down."""

import contextlib
import http.client
import json
import time
from pathlib import Path

import psutil
import pytest
import rest_service  # noqa: E402
from rest_service import GOOD, until, workers  # noqa: E402

from lakevision.registry import model_registry

pytestmark = [pytest.mark.service, pytest.mark.kill]


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    return rest_service.registered(tmp_path_factory.mktemp("serve"))


@contextlib.contextmanager
def spoilt(*files):
    """The files hold half a JSON meanwhile."""
    whole = {file: file.read_bytes() for file in files}
    try:
        for file in files:
            file.write_bytes(b"{")
        yield
    finally:
        for file, data in whole.items():
            if file.parent.exists():  # the service removes its own when it ends
                file.write_bytes(data)


def downloads(service):
    """The folders in which the service keeps the files of versions."""
    return [folder for scratch in service.path.parent.glob("lakevision-serve-*") for folder in scratch.iterdir()]


def versions(service):
    """The versions that eight connections in a row are told: each worker gets some of them."""
    open_ones = [http.client.HTTPConnection("127.0.0.1", service.port, timeout=60) for _ in range(8)]
    found = set()
    for one in open_ones:
        one.request("GET", "/version")
        found.add(json.loads(one.getresponse().read())["version"])
    for one in open_ones:
        one.close()
    return found


def replaced(service, victim):
    """Kills a worker and waits until as many serve as before."""
    victim.kill()
    until(
        lambda: victim.pid not in {one.pid for one in workers(service)} and len(workers(service)) == 2, 60, service.log
    )


def test_a_replacement_that_dies_while_it_loads_ends_no_healthy_worker(registered, tmp_path):
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


def test_it_gives_up_where_no_worker_comes_to_serve_again(registered, tmp_path):
    with rest_service.serving(registered[0], tmp_path / "log", "serve.workers=1", short_pauses=True) as service:
        with spoilt(*(folder / "artifacts" / "card.json" for folder in downloads(service))):
            workers(service)[0].kill()
            assert service.process.wait(150) == 1
    assert (
        "gives up: 5 workers in a row, and none serves" in service.log() and "starts another in 0.8 s" in service.log()
    )


def test_a_replacement_starts_with_the_version_that_the_others_serve_though_the_registry_is_down(registered, tmp_path):
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
            database.write_bytes(
                b"no database at all" * 100
            )  # in its place: who has it open would go on reading one that was only renamed
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


def test_a_version_that_can_not_be_loaded_is_fetched_once_and_its_files_go(registered, tmp_path):
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
                time.sleep(3)  # fifteen looks
                assert downloads(service) == first and versions(service) == {"1"}
                assert service.log().count("version 2 can't be loaded") == 1
            model_registry.set_alias(cfg, "champion", "1")  # the alias moves, and comes back to what is whole now
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
    """Whether a card lies in the model of this version: its MLmodel names the run."""
    text = (card.parents[1] / "MLmodel").read_text()
    return any(run[one] == number and one in text for one in run)
