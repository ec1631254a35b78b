"""Fixtures of the agent's tests: real processes, a real S3 server, and a faulty proxy before it."""

import json
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(Path(__file__).parent)]

import bundles  # noqa: E402
import harness  # noqa: E402
import s3  # noqa: E402
import steps  # noqa: E402


@pytest.fixture(autouse=True)
def credentials(monkeypatch):
    """Sets test credentials for every process, and removes the developer's own."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_", "DATABRICKS_", "NOTIFY_", "WATCHDOG_", "CREDENTIALS_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIATEST")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", harness.SECRET)


@pytest.fixture(scope="session")
def moto():
    """Port of an S3 server in a process of its own."""
    with s3.moto_server() as port:
        yield port


@pytest.fixture
def bucket(moto, request):
    """An empty S3 bucket, as a s3.Bucket."""
    return s3.Bucket.make(moto, request.node.name)


@pytest.fixture
def proxy(moto):
    """An HTTP proxy before the S3 server; proxy.rule decides the fate of each request."""
    with s3.FaultyProxy(moto) as faulty:
        yield faulty


@pytest.fixture
def agent(tmp_path, photos):
    """The agent in tmp_path, with a replayed folder and without pauses. agent.configure(...) changes settings.

    Ends the agent's processes.
    """
    made = harness.Agent(tmp_path, photos)
    yield made
    made.stop_all()


@pytest.fixture(scope="session")
def photos(tmp_path_factory):
    """A folder of seven small JPEGs of different sizes, 3 to 20 kB."""
    folder = tmp_path_factory.mktemp("photos")
    harness.make_photos(folder)
    return folder


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The folder of small LiteRT models that bundles.py builds, once per session."""
    return bundles.build(tmp_path_factory.mktemp("models"))


@pytest.fixture
def scoring(agent, models, tmp_path):
    """The agent with scoring switched on.

    It follows champion in the published folder scoring.place, which holds version 1 of the good model.
    """
    agent.place = tmp_path / "edge"
    agent.models = models
    agent.model = tmp_path / "model"
    (tmp_path / "landing").mkdir()
    agent.configure(
        score={"enabled": True, "poll_s": 0.02, "batch_frames": 8, "batch_s": 0.2},
        store={"url": str(tmp_path / "landing")},
        model={"folder": str(agent.model), "url": str(agent.place), "interval_s": 0.3, "probation": 6},
    )
    bundles.publish(models, agent.place, "1")
    return agent


@pytest.fixture
def second(scoring, models):
    """With version 1 in use: a function that publishes version 2, spoilt by spoil(folder), and returns its digest."""
    steps.ready(scoring)
    for kind in ("shape", "three"):
        (scoring.folder / kind).write_bytes((models / f"{kind}-float32.tflite").read_bytes())

    def publish(spoil, kind="good", **more):
        bundles.publish(models, scoring.place, "2", kind, variants=("float32",), **more)
        spoil(scoring.place / "versions" / "2")
        return json.loads((scoring.place / "champion.json").read_text())["manifest_sha256"]

    return publish


@pytest.fixture
def uploaded_landing(tmp_path, agent):
    """(folder, list of harness.Ack): a local landing zone with 12 labelled simulated frames.

    Real processes captured, spooled and uploaded them.
    """
    return harness.fill_landing(agent, tmp_path / "landing", frames=12)
