"""Credentials: their sources, and no secret in any output."""

import re
from pathlib import Path

import harness
import pytest
import s3
from harness import SECRET

from device.store import credentials


def _made(folder):
    folder.mkdir()
    return folder


def test_systemd_credentials_override_environment(tmp_path, monkeypatch):
    (tmp_path / "store").write_text(
        f"# comment\nAWS_ACCESS_KEY_ID=AKIAFILE\nAWS_SECRET_ACCESS_KEY='{SECRET}2'\nOTHER=1\n"
    )
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert credentials.load("s3") == {"AWS_ACCESS_KEY_ID": "AKIAFILE", "AWS_SECRET_ACCESS_KEY": f"{SECRET}2"}
    assert credentials.load("file") == {}


def test_malformed_credentials_name_line_but_not_value(tmp_path, monkeypatch):
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
def test_redact_removes_every_secret(text):
    clean = credentials.redact(text, {"AWS_SECRET_ACCESS_KEY": SECRET, "AWS_ACCESS_KEY_ID": "AKIATEST"})
    assert "[redacted]" in clean and not re.search("verySecret|abc|0123|dapi123", clean)


@pytest.mark.service
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


@pytest.mark.service
def test_new_credentials_apply_without_restart(agent, bucket, proxy, tmp_path):
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
