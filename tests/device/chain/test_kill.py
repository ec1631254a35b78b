"""kill -9 at random moments breaks no promise.

LAKEVISION_SOAK=1 kills 200 times, the suite a seeded share.
"""

import random
import time

import harness
import pytest
from harness import SOAK, reckon, until

pytestmark = [pytest.mark.chain, pytest.mark.kill]


KILLS = 200 if SOAK else 12


def test_killed_capture_breaks_no_promise(agent, tmp_path):
    """The spool is so small that drops are always under way, while upload sends to a store."""
    landing = tmp_path / "landing"
    landing.mkdir()
    agent.configure(spool={"max_mb": 0.3}, store={"url": str(landing)}, upload={"max_kb_s": 2000.0})
    rng = random.Random(1)
    upload = agent.start("upload")
    for kill in range(KILLS):
        before = len(agent.journal("capture"))
        capture = agent.start("capture")
        if kill % 4:  # otherwise capture dies during its start, recovery and reservation of numbers
            until(lambda before=before: len(agent.journal("capture")) > before, "capture prints a line")
        time.sleep(rng.uniform(0, 0.25))
        capture.kill()
        capture.wait()
    assert agent.stop(upload) == 0
    agent.run("capture", "--once")  # clears up after the last kill
    agent.configure(upload={"max_kb_s": 0.0})
    agent.run("upload", "--once")
    count = reckon(agent, harness.read_folder(landing))
    assert count > 10 * KILLS and agent.counters("capture")["dropped"] > 0
    assert not list((agent.spool / "tmp").iterdir())
    numbers = [ack.key.rpartition("_")[2] for ack in agent.acks()]
    assert len(set(numbers)) == count, "a kill must not repeat a sequence number"
    dropped = agent.counters("capture")["dropped"]
    print(f"{KILLS} kills of capture: {count} frames promised, {dropped} dropped by the quota")


@pytest.mark.service
@pytest.mark.parametrize("place", ["s3", "folder"])
def test_killed_upload_breaks_no_promise(agent, bucket, proxy, tmp_path, place):
    landing = tmp_path / "landing"
    landing.mkdir()
    if place == "s3":
        proxy.rule = lambda method, path, number: "lost" if number % 17 == 0 else "pass"  # responses get lost as well
        agent.use_bucket(bucket, proxy.port)
    else:
        agent.configure(store={"url": str(landing)})
    rng = random.Random(2)
    kills = KILLS if place == "s3" else KILLS // 2
    agent.configure(capture={"interval_s": 0.02})
    capture = agent.start("capture")
    for kill in range(kills):
        before = len(agent.journal("upload"))
        upload = agent.start("upload")
        if kill % 4:
            until(lambda before=before: len(agent.journal("upload")) > before, "upload prints a line")
        time.sleep(rng.uniform(0, 0.2))
        upload.kill()
        upload.wait()
    assert agent.stop(capture) == 0
    agent.run("upload", "--once", check=False)
    until(lambda: agent.run("upload", "--once", check=False).returncode == 0, "the spool is empty")
    count = reckon(agent, bucket.objects() if place == "s3" else harness.read_folder(landing))
    assert count > kills
    print(f"{kills} kills of upload to {place}: {count} frames promised, all there")
