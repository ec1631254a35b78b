"""The quota of the spool, with capture and upload at work."""

import random

import harness
import pytest

from device.capture import WRITERS

pytestmark = pytest.mark.chain


def test_quota_drops_oldest_frames_first(agent):
    """The oldest frames go first, except those being written; the quota holds, and the counts balance."""
    agent.configure(spool={"max_mb": 0.1})
    agent.run("capture", "--frames", "60")
    sizes = [(agent.spool / "ready" / name).stat().st_size for name in agent.waiting()]
    assert sum(sizes) <= 100_000 and len(sizes) + agent.counters("capture")["dropped"] == 60
    kept = [int(name.partition("~")[0]) for name in agent.waiting()]
    assert kept == sorted(set(kept)) and kept[0] > 60 - len(kept) - WRITERS


@pytest.mark.service
@pytest.mark.parametrize("answers_lost", [False, True], ids=["", "answers lost"])
def test_quota_never_drops_frame_being_uploaded(agent, bucket, proxy, answers_lost):
    """A frame being sent is not dropped: each frame is either stored or counted as dropped, never both."""
    rng = random.Random(5)
    proxy.rule = lambda *_: "lost" if answers_lost and rng.random() < 0.1 else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.configure(spool={"max_mb": 0.1}, capture={"interval_s": 0.002})
    upload = agent.start("upload")
    # Status 75 is fine: if upload and the writers hold the whole quota, the last frame is dropped.
    assert agent.run("capture", "--frames", "600", check=False).returncode in (0, 75)
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)
    stored = bucket.objects()
    harness.reckon(agent, stored, answers_lost)
    dropped = agent.counters("capture").get("dropped", 0)
    assert len(stored) + dropped >= 600 if answers_lost else len(stored) + dropped == 600
