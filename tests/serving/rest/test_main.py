"""The command line of the REST service: wrong settings and broken versions end with a message."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import rest_service

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    "settings, arguments, words",
    [
        ((), ("--alias", "challenger"), "no version of model lakevision is challenger.*--version N"),
        ((), ("--version", "99"), "version 99, can't be had from sqlite"),
        (("storage.mlflow_uri=http://127.0.0.1:9",), (), "can't be had from http://127.0.0.1:9: "),
        (("serve.host=203.0.113.1",), (), "can't listen at 203.0.113.1:0"),
    ],
    ids=["no such alias", "no such version", "registry down", "host of another"],
)
def test_unservable_version_ends_with_status_1(registered, tmp_path, settings, arguments, words):
    set_words = [
        word
        for setting in (f"storage.root={registered[0].storage.root}", "serve.port=0", *settings)
        for word in ("--set", setting)
    ]
    done = subprocess.run(
        [sys.executable, "-m", "lakevision.serving.rest.main", *set_words, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(rest_service.REPOSITORY / "notebooks")},
    )
    assert done.returncode == 1 and re.search(words, done.stderr) and "Traceback" not in done.stderr


def test_run_sh_serves_and_broken_version_ends_with_status_1(registered, command):
    refused = command("--serve", "--only", "02_ingest")
    assert refused.returncode == 2 and "--serve goes with" in refused.stderr
    missing = command(
        "--serve", "challenger", "--set", f"storage.root={registered[0].storage.root}", "--set", "serve.port=0"
    )
    assert missing.returncode == 1 and "no version of model" in missing.stderr
    cards = {card: card.read_text() for card in Path(registered[0].storage.root, "mlartifacts").rglob("card.json")}
    try:
        for card in cards:
            card.write_text("{")
        failed = command("--serve", "1", "--set", f"storage.root={registered[0].storage.root}", "--set", "serve.port=0")
    finally:
        for card, whole in cards.items():
            card.write_text(whole)
    assert (
        failed.returncode == 1 and "version 1 can't be loaded" in failed.stderr and "before it served" in failed.stderr
    )
