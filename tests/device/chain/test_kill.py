"""kill -9 at random moments, of capture and of upload: no promise is broken. LAKEVISION_SOAK=1 kills 200 times, the suite a seeded share."""

import random
import time

import harness
import pytest
from harness import SOAK, reckon, until

KILLS = 200 if SOAK else 12


def test_capture_killed(agent, tmp_path):
    """With a spool so small that drops are under way at any moment, and a store that takes what it gets meanwhile."""
    landing = tmp_path / "landing"
    landing.mkdir()
    agent.configure(spool={"max_mb": 0.3}, store={"url": str(landing)}, upload={"max_kb_s": 2000.0})
    rng = random.Random(1)
    upload = agent.start("upload")
    for kill in range(KILLS):
        said = len(agent.journal("capture"))
        capture = agent.start("capture")
        if kill % 4:  # else it dies while it starts, recovers and reserves its numbers
            until(lambda: len(agent.journal("capture")) > said, "capture has said something")
        time.sleep(rng.uniform(0, 0.25))
        capture.kill()
        capture.wait()
    assert agent.stop(upload) == 0
    agent.run("capture", "--once")  # clears up what the last kill left
    agent.configure(upload={"max_kb_s": 0.0})
    agent.run("upload", "--once")
    count = reckon(agent, harness.read_folder(landing))
    assert count > 10 * KILLS and agent.counters("capture")["dropped"] > 0
    assert not list((agent.spool / "tmp").iterdir())
    numbers = [ack.key.rpartition("_")[2] for ack in agent.acks()]
    assert len(set(numbers)) == count, "a kill must not make a sequence number come twice"
    print(
        f"{KILLS} kills of capture: {count} frames promised, {agent.counters('capture')['dropped']} dropped by the quota"
    )


@pytest.mark.parametrize("place", ["s3", "folder"])
def test_upload_killed(agent, bucket, proxy, tmp_path, place):
    landing = tmp_path / "landing"
    landing.mkdir()
    if place == "s3":
        proxy.rule = lambda method, path, number: "lost" if number % 17 == 0 else "pass"  # answers get lost as well
        agent.use_bucket(bucket, proxy.port)
    else:
        agent.configure(store={"url": str(landing)})
    rng = random.Random(2)
    kills = KILLS if place == "s3" else KILLS // 2
    agent.configure(capture={"interval_s": 0.02})
    capture = agent.start("capture")
    for kill in range(kills):
        said = len(agent.journal("upload"))
        upload = agent.start("upload")
        if kill % 4:
            until(lambda: len(agent.journal("upload")) > said, "upload has said something")
        time.sleep(rng.uniform(0, 0.2))
        upload.kill()
        upload.wait()
    assert agent.stop(capture) == 0
    agent.run("upload", "--once", check=False)
    until(lambda: agent.run("upload", "--once", check=False).returncode == 0, "the spool is empty")
    count = reckon(agent, bucket.objects() if place == "s3" else harness.read_folder(landing))
    assert count > kills
    print(f"{kills} kills of upload to {place}: {count} frames promised, all there")
