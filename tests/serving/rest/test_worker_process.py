"""Worker processes serve the version they are started with, and end with their parent."""

import psutil
import pytest
import rest_service
from rest_service import GOOD, expected, same

pytestmark = [pytest.mark.service, pytest.mark.kill]


def test_workers_serve_a_version_by_number_and_end_with_parent(registered, tmp_path):
    with rest_service.serving(registered[0], tmp_path / "log", arguments=("--version", "2")) as service:
        found = service.ask(None, None, "/version", "GET")[1]
        assert (found["version"], found["alias"]) == ("2", "")
        assert same(service.ask(GOOD["grey"])[1]["predictions"][0], expected(registered[1]["2"], GOOD["grey"]))
        left = rest_service.workers(service)
        service.process.kill()
        assert len(left) == 2 and not psutil.wait_procs(left, timeout=20)[1]
