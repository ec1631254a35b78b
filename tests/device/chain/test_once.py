"""Single runs and dry runs of capture and upload."""

from pathlib import Path

import pytest

pytestmark = pytest.mark.chain


@pytest.mark.service
def test_dry_runs_change_nothing(agent, bucket):
    agent.use_bucket(bucket)
    assert "would store" in agent.run("capture", "--dry-run").stdout
    assert not agent.spool.exists()
    agent.run("capture", "--frames", "2")
    before = agent.waiting()
    assert agent.run("upload", "--dry-run").stdout.count("would send device=porch-7/") == 2
    assert agent.waiting() == before and bucket.objects() == {}


@pytest.mark.service
def test_once_captures_and_uploads_one_frame(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--once")
    agent.run("upload", "--once")
    assert len(bucket.objects()) == 1
    assert Path(agent.spool / "ready").exists()
