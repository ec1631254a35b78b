"""A Databricks volume: sign-in, failures, and one request at a time."""

import re
import time

import harness
import pytest
import s3
import servers
from arrival import arrive

pytestmark = pytest.mark.service


@pytest.fixture
def workspace(agent):
    made = servers.Workspace()
    with servers.Server(made.answer) as server:
        agent.configure(
            store={"url": f"volume://127.0.0.1:{server.port}/main/lake/landing/cameras", "allow_http": True}
        )
        yield made


def volume_files(workspace):
    return {path[len("/Volumes/main/lake/landing/cameras/") :]: data for path, data in workspace.files.items()}


@pytest.mark.parametrize(
    "secrets",
    [
        pytest.param(
            {"DATABRICKS_CLIENT_ID": "client-1", "DATABRICKS_CLIENT_SECRET": "client/secret"}, id="service principal"
        ),
        pytest.param({"DATABRICKS_TOKEN": "dapi-good"}, id="token"),
    ],
)
def test_volume_receives_frames_once(agent, workspace, monkeypatch, secrets):
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    arrive(agent, lambda: volume_files(workspace))


def test_volume_signs_in_again_after_revoked_token(agent, workspace, monkeypatch):
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "client-1")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "client/secret")
    agent.configure(capture={"interval_s": 0.05})
    capture, upload = agent.start("capture"), agent.start("upload")
    harness.until(lambda: workspace.files, "the first frames arrive")
    workspace.tokens.clear()
    harness.until(lambda: workspace.sign_ins >= 2, "upload signs in again")
    before = len(workspace.files)
    harness.until(lambda: len(workspace.files) > before, "uploads go on")
    agent.stop(capture)
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)
    harness.reckon(agent, volume_files(workspace))


def test_volume_with_stale_token_is_denied(agent, workspace, monkeypatch):
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-stale-one")
    agent.run("capture", "--once")
    done = agent.run("upload", "--once", check=False)
    assert (
        done.returncode == 75
        and "DENIED" in done.stderr
        and "dapi-stale-one" not in done.stderr
        and len(agent.waiting()) == 1
    )


@pytest.mark.parametrize("action", ["silent", "dribble", "lost", "reset"])
def test_volume_receives_frames_though_line_fails(agent, workspace, monkeypatch, action):
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
    port = int(re.search(r":(\d+)/", agent.settings["store"]["url"])[1])
    with s3.FaultyProxy(port) as proxy:
        proxy.rule = lambda method, path, number: action if number in (2, 5) else "pass"
        agent.configure(
            store={"url": agent.settings["store"]["url"].replace(str(port), str(proxy.port))}, upload={"timeout_s": 0.8}
        )
        agent.run("capture", "--frames", "6")
        upload = agent.start("upload")
        harness.until(lambda: not agent.waiting(), "the spool runs empty")
        agent.stop(upload)
    assert harness.reckon(agent, volume_files(workspace)) == 6


def test_volume_gets_one_request_at_a_time(agent, workspace, monkeypatch):
    """The client keeps one connection, which two threads must not share."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
    port = int(re.search(r":(\d+)/", agent.settings["store"]["url"])[1])
    with s3.FaultyProxy(port) as proxy:
        current, counts = [], []

        def hold(method, path, number):
            current.append(path)
            counts.append(len(current))
            time.sleep(0.03)
            current.remove(path)
            return "pass"

        proxy.rule = hold
        agent.configure(store={"url": agent.settings["store"]["url"].replace(str(port), str(proxy.port))})
        agent.run("capture", "--frames", "6")
        agent.run("upload", "--once")
    assert max(counts) == 1 and harness.reckon(agent, volume_files(workspace)) == 6
