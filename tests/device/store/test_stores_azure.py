"""Azure, against Microsoft's emulator."""

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import harness
import pytest
from arrival import arrive

pytestmark = pytest.mark.service


# Azurite's published key
AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def azurite():
    """Port of Azurite, Microsoft's Azure storage emulator; npm installs it once into the temporary folder."""
    program = shutil.which("azurite-blob")
    if not program:
        if not shutil.which("npm"):
            pytest.skip("neither azurite-blob nor npm is installed")
        home = Path(tempfile.gettempdir()) / f"lakevision-azurite-{os.getuid()}"
        program = home / "node_modules/.bin/azurite-blob"
        if not program.exists():
            home.mkdir(exist_ok=True)
            done = subprocess.run(
                ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(home), "azurite"],
                capture_output=True,
                text=True,
                timeout=240,
            )
            if done.returncode or not program.exists():
                pytest.skip(f"npm could not install azurite: {done.stderr.strip()[-200:]}")
    port = harness.free_port()
    process = subprocess.Popen(
        [
            str(program),
            "--inMemoryPersistence",
            "--disableTelemetry",
            "--silent",
            "--skipApiVersionCheck",
            "--blobPort",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    harness.until(lambda: harness.answers(port), "azurite answers", 60)
    yield port
    process.kill()
    process.wait()


def azure_objects(port):
    import obstore

    store = azure_store(port)
    return {
        item["path"]: bytes(obstore.get(store, item["path"]).bytes()) for batch in obstore.list(store) for item in batch
    }


def azure_store(port):
    from obstore.store import from_url

    return from_url(
        "abfss://pictures@devstoreaccount1.dfs.core.windows.net/landing",
        client_options={"allow_http": True},
        config={
            "azure_storage_endpoint": f"http://127.0.0.1:{port}/devstoreaccount1",
            "azure_storage_account_key": AZURITE_KEY,
        },
    )


def make_container(port):
    """Makes the container. Signs by hand with the shared key, because obstore cannot make containers."""
    import base64
    import hashlib
    import hmac
    import http.client
    from email.utils import formatdate

    when = formatdate(usegmt=True)
    text = (
        "PUT"
        + 12 * "\n"
        + (f"x-ms-date:{when}\nx-ms-version:2021-08-06\n/devstoreaccount1/devstoreaccount1/pictures\nrestype:container")
    )
    signature = base64.b64encode(
        hmac.new(base64.b64decode(AZURITE_KEY), text.encode(), hashlib.sha256).digest()
    ).decode()
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(
        "PUT",
        "/devstoreaccount1/pictures?restype=container",
        headers={
            "x-ms-date": when,
            "x-ms-version": "2021-08-06",
            "Content-Length": "0",
            "Authorization": f"SharedKey devstoreaccount1:{signature}",
        },
    )
    assert connection.getresponse().status in (201, 409)
    connection.close()


def test_azure_receives_frames_once(agent, azurite, monkeypatch):
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", AZURITE_KEY)
    agent.configure(
        store={
            "url": "abfss://pictures@devstoreaccount1.dfs.core.windows.net/landing",
            "allow_http": True,
            "endpoint": f"http://127.0.0.1:{azurite}/devstoreaccount1",
        }
    )
    agent.run("capture", "--once")
    done = agent.run("upload", "--once", check=False)
    assert done.returncode == 75 and "DENIED" in done.stderr and "ContainerNotFound" in done.stderr, (
        "a missing container is reported, not retried for ever"
    )
    make_container(azurite)
    arrive(agent, lambda: azure_objects(azurite))


def test_azure_with_wrong_key_is_denied(agent, azurite, monkeypatch):
    make_container(azurite)
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_KEY", "d3JvbmcgYW5kIHNlY3JldA==")
    agent.configure(
        store={
            "url": "abfss://pictures@devstoreaccount1.dfs.core.windows.net/landing",
            "allow_http": True,
            "endpoint": f"http://127.0.0.1:{azurite}/devstoreaccount1",
        }
    )
    agent.run("capture", "--once")
    done = agent.run("upload", "--once", check=False)
    assert done.returncode == 75 and "DENIED" in done.stderr and "d3JvbmcgYW5kIHNlY3JldA" not in done.stderr
