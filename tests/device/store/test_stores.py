"""Every kind of store: frames arrive, a repeat is harmless, nothing is overwritten, and no secret is ever shown."""

import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import harness
import pytest
import s3
import servers
from harness import SECRET

from device import config
from device.store import credentials, stores, types

AZURITE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # Azurite's published one


def arrive(agent, read, frames=6):
    """Uploads; then the same frames once more, as after a power cut that brought them back to the spool; then the reckoning."""
    agent.run("capture", "--frames", str(frames))
    kept = {name: (agent.spool / "ready" / name).read_bytes() for name in agent.waiting()}
    agent.run("upload", "--once")
    for name, data in kept.items():
        (agent.spool / "ready" / name).write_bytes(data)
    assert agent.run("upload", "--once").stdout.count("already there") == len(kept) >= frames
    assert harness.reckon(agent, read()) == len(kept)


def test_s3(agent, bucket):
    agent.use_bucket(bucket)
    arrive(agent, bucket.objects)


def test_folder(agent, tmp_path):
    agent.configure(store={"url": f"file://{_made(tmp_path / 'landing')}"})
    arrive(agent, lambda: harness.read_folder(tmp_path / "landing"))


def test_folder_without_links(agent, tmp_path):
    """exFAT, the usual USB stick."""
    agent.configure(store={"url": str(_made(tmp_path / "landing"))})
    no_links = (
        "import os, errno\ndef link(*a, **k): raise OSError(errno.EPERM, 'Operation not permitted')\nos.link = link"
    )
    agent.run("capture", "--frames", "3")
    agent.run("upload", "--once", driver=no_links)
    assert harness.reckon(agent, harness.read_folder(tmp_path / "landing")) == 3
    assert not [path for path in (tmp_path / "landing").rglob(".*")]


def test_a_disk_that_is_not_mounted_is_no_empty_folder(agent, tmp_path):
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


@pytest.fixture(scope="session")
def azurite():
    """Port of Azurite, Microsoft's Azure storage emulator; installed once into the temporary folder where npm is."""
    program = shutil.which("azurite-blob")
    if not program:
        if not shutil.which("npm"):
            pytest.skip("neither azurite-blob nor npm is here")
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
    """Shared-key signing by hand: obstore can't make containers."""
    import base64
    import hashlib
    import hmac
    import http.client
    from email.utils import formatdate

    when = formatdate(usegmt=True)
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{when}\nx-ms-version:2021-08-06\n/devstoreaccount1/devstoreaccount1/pictures\nrestype:container"
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


def test_azure(agent, azurite, monkeypatch):
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
        "a missing container is said, not retried for ever"
    )
    make_container(azurite)
    arrive(agent, lambda: azure_objects(azurite))


def test_azure_with_a_wrong_key(agent, azurite, monkeypatch):
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


def test_google(agent, monkeypatch):
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


# ---- a Databricks volume


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
def test_volume(agent, workspace, monkeypatch, secrets):
    for name, value in secrets.items():
        monkeypatch.setenv(name, value)
    arrive(agent, lambda: volume_files(workspace))


def test_volume_with_expired_and_revoked_tokens(agent, workspace, monkeypatch):
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "client-1")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "client/secret")
    agent.configure(capture={"interval_s": 0.05})
    capture, upload = agent.start("capture"), agent.start("upload")
    harness.until(lambda: workspace.files, "the first ones arrive")
    workspace.tokens.clear()
    harness.until(lambda: workspace.sign_ins >= 2, "upload signs in anew")
    seen = len(workspace.files)
    harness.until(lambda: len(workspace.files) > seen, "uploads go on")
    agent.stop(capture)
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)
    harness.reckon(agent, volume_files(workspace))


def test_volume_denied(agent, workspace, monkeypatch):
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
def test_volume_misbehaves(agent, workspace, monkeypatch, action):
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


def test_a_volume_has_one_request_at_a_time(agent, workspace, monkeypatch):
    """Its client keeps one connection, which two threads would tear apart."""
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
    port = int(re.search(r":(\d+)/", agent.settings["store"]["url"])[1])
    with s3.FaultyProxy(port) as proxy:
        there, seen = [], []

        def hold(method, path, number):
            there.append(path)
            seen.append(len(there))
            time.sleep(0.03)
            there.remove(path)
            return "pass"

        proxy.rule = hold
        agent.configure(store={"url": agent.settings["store"]["url"].replace(str(port), str(proxy.port))})
        agent.run("capture", "--frames", "6")
        agent.run("upload", "--once")
    assert max(seen) == 1 and harness.reckon(agent, volume_files(workspace)) == 6


# ---- what an answer means


@pytest.mark.parametrize(
    "status, text, kind",
    [
        (None, "error sending request", types.Unavailable),
        (500, "", types.Unavailable),
        (503, "SlowDown", types.Unavailable),
        (429, "", types.Unavailable),
        (408, "", types.Unavailable),
        (409, "OperationAborted", types.Unavailable),
        (401, "", types.Denied),
        (403, "AccessDenied", types.Denied),
        (400, "<Code>ExpiredToken</Code>", types.Denied),
        (404, "<Code>NoSuchBucket</Code>", types.Denied),
        (404, "<Code>NoSuchKey</Code>", types.Unavailable),
        (301, "", types.Denied),
        (400, "InvalidArgument", types.Refused),
        (413, "", types.Refused),
        (422, "", types.Refused),
    ],
)
def test_classify(status, text, kind):
    assert type(types.classify(status, text)) is kind


# ---- credentials


def test_systemds_credentials_come_before_the_environment(tmp_path, monkeypatch):
    (tmp_path / "store").write_text(
        f"# comment\nAWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY='{SECRET}2'\nOTHER=1\n"
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.load("s3") == {"AWS_ACCESS_KEY_ID": "AKIAFILE", "AWS_SECRET_ACCESS_KEY": f"{SECRET}2"}
    assert credentials.load("file") == {}


def test_a_bad_credentials_file_names_the_line_and_not_its_value(tmp_path, monkeypatch):
    (tmp_path / "store").write_text("AWS_ACCESS_KEY_ID=x\nthisIsTheSecretItself\n")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    with pytest.raises(credentials.CredentialsError, match="line 2") as error:
        credentials.load("s3")
    assert "Secret" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "key verySecret/Key+of=tests end",
        "key verySecret%2FKey%2Bof%3Dtests end",
        "PUT https://a/b?sv=1&sig=abc%2Fdef&se=2",
        "x-amz-signature=0123abcd",
        "Authorization: Bearer dapi123",
    ],
)
def test_redact(text):
    clean = credentials.redact(text, {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "AKIATEST"})
    assert "[redacted]" in clean and not re.search("verySecret|abc|0123|dapi123", clean)


def test_no_secret_in_journal_spool_or_command_line(agent, bucket, proxy):
    """Through failures of every kind, everything the agent wrote is searched for the secret."""
    answers = iter(
        [
            (403, s3.s3_error("AccessDenied", f"you said {SECRET}")),
            (500, "x"),
            (400, s3.s3_error("ExpiredToken")),
            "silent",
        ]
    )
    proxy.rule = lambda *_: next(answers, "pass")
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "3")
    upload = agent.start("upload")
    harness.until(lambda: agent.waiting() and "DENIED" in agent.journal("upload"), "failures")
    line = Path(f"/proc/{upload.pid}/cmdline").read_bytes().decode()
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)
    agent.run("status", check=False)
    agent.run("doctor", check=False)
    for path in agent.folder.rglob("*"):
        if path.is_file():
            assert SECRET.encode() not in path.read_bytes(), path
    assert SECRET not in line and "[redacted]" in agent.journal("upload")


def test_new_credentials_are_taken_up_without_a_restart(agent, bucket, proxy, tmp_path):
    folder = _made(tmp_path / "credentials")
    (folder / "store").write_text("AWS_ACCESS_KEY_ID=AKIAOLD\nAWS_SECRET_ACCESS_KEY=old-secret\n")
    proxy.rule = lambda *_: "pass" if "AKIANEW" in proxy.signed_by[-1] else (403, s3.s3_error("InvalidAccessKeyId"))
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "2")
    upload = agent.start("upload", env={"CREDENTIALS_DIRECTORY": str(folder)})
    harness.until(lambda: "DENIED" in agent.journal("upload"), "denied")
    (folder / "store").write_text("AWS_ACCESS_KEY_ID=AKIANEW\nAWS_SECRET_ACCESS_KEY=new-secret\n")
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)


def test_settings_of_a_store_that_cannot_be(tmp_path):
    settings = config.load()
    with pytest.raises(types.Denied, match="store.url is empty"):
        stores.open_store(settings)
