"""S3, Google and folders: frames arrive, a repeat is harmless, and nothing is overwritten."""

import json

import harness
import pytest
import servers
from arrival import arrive

from device import config
from device.store import stores, types


@pytest.mark.service
def test_s3_receives_frames_once(agent, bucket):
    agent.use_bucket(bucket)
    arrive(agent, bucket.objects)


def test_folder_receives_frames_once(agent, tmp_path):
    agent.configure(store={"url": f"file://{_made(tmp_path / 'landing')}"})
    arrive(agent, lambda: harness.read_folder(tmp_path / "landing"))


def test_folder_without_hard_links_receives_frames(agent, tmp_path):
    """exFAT, the usual USB stick."""
    agent.configure(store={"url": str(_made(tmp_path / "landing"))})
    no_links = (
        "import os, errno\ndef link(*a, **k): raise OSError(errno.EPERM, 'Operation not permitted')\nos.link = link"
    )
    agent.run("capture", "--frames", "3")
    agent.run("upload", "--once", driver=no_links)
    assert harness.reckon(agent, harness.read_folder(tmp_path / "landing")) == 3
    assert not [path for path in (tmp_path / "landing").rglob(".*")]


def test_missing_mount_is_not_created(agent, tmp_path):
    agent.configure(store={"url": str(tmp_path / "usb")})
    agent.run("capture", "--once")
    done = agent.run("upload", "--once", check=False)
    assert (
        done.returncode == 75
        and "mount its disk" in done.stderr
        and len(agent.waiting()) == 1
        and not (tmp_path / "usb").exists()
    )


def _made(folder):
    folder.mkdir()
    return folder


def test_google_receives_frames_once(agent, monkeypatch):
    """The XML API's create-only header against a small server; signing in is switched off, as emulators do."""
    google = servers.Google()
    with servers.Server(google.answer) as server:
        key = {
            "gcs_base_url": f"http://127.0.0.1:{server.port}",
            "disable_oauth": True,
            "client_email": "",
            "private_key": "",
            "private_key_id": "",
        }
        monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT_KEY", json.dumps(key))
        agent.configure(store={"url": "gs://pictures/landing", "allow_http": True})
        arrive(agent, lambda: {path[len("/pictures/landing/") :]: data for path, data in google.files.items()})


def test_empty_store_url_is_denied(tmp_path):
    settings = config.load()
    with pytest.raises(types.Denied, match="store.url is empty"):
        stores.open_store(settings)
