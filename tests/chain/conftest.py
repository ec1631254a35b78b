"""Shared by the tests of whole runs: where a run has kept its notebooks and its page."""

import re
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def run_folder():
    """(what a run printed, or its CompletedProcess; its working directory) -> the folder that its line `page: ...`
    names.

    Tests never read .local/runs/latest: another run may be the latest.
    """

    def find(done, cwd="."):
        output = done if isinstance(done, str) else done.stdout
        page = re.search(r"(?m)^page: (.*)$", output)
        assert page, output[-2000:]
        return Path(cwd, page[1]).resolve().parent

    return find
