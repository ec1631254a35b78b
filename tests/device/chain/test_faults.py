"""Store, disk and clock misbehave; every frame still arrives exactly once or is counted as dropped."""

import os

import harness
import pytest
import s3
from harness import reckon, until
from s3 import s3_error

pytestmark = pytest.mark.chain


FRAMES = 15


@pytest.mark.service
def test_frames_arrive_after_store_was_down(agent, bucket):
    """No store listens at first; capture goes on, and all frames arrive once a store listens."""
    port = harness.free_port()
    agent.use_bucket(bucket, port)
    agent.configure(capture={"interval_s": 0.05})
    capture, upload = agent.start("capture"), agent.start("upload")
    until(
        lambda: len(agent.acks()) > 20 and agent.journal("upload").count("trying again") > 3,
        "frames are taken, uploads fail",
    )
    assert "uploaded " not in agent.journal("upload")
    with s3.FaultyProxy(bucket.port, listen=port):
        until(lambda: agent.journal("upload").count("uploaded ") > 20, "uploads resume")
        assert agent.stop(capture) == 0
        until(lambda: not agent.waiting(), "the spool runs empty")
        assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) > 20


@pytest.mark.service
@pytest.mark.parametrize(
    "rule, word",
    [
        pytest.param(lambda m, p, n: "silent" if n in (3, 9) else "pass", "trying again", id="silent"),
        pytest.param(lambda m, p, n: "dribble" if n in (3, 9) else "pass", "trying again", id="slow answer"),
        pytest.param(lambda m, p, n: "lost" if n % 3 == 0 else "pass", "already there", id="answers lost"),
        pytest.param(lambda m, p, n: "reset" if n % 2 else "pass", "trying again", id="connections reset"),
        pytest.param(lambda m, p, n: (500, s3_error("InternalError")) if n % 2 else "pass", "InternalError", id="500"),
        pytest.param(lambda m, p, n: (503, s3_error("SlowDown")) if n % 2 else "pass", "SlowDown", id="503"),
        pytest.param(lambda m, p, n: (429, "too many") if n % 3 else "pass", "429", id="429"),
    ],
)
def test_frames_arrive_once_though_store_misbehaves(agent, bucket, proxy, rule, word):
    proxy.rule = rule
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", str(FRAMES))
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == FRAMES
    assert word in agent.journal("upload")


@pytest.mark.service
def test_slow_store_does_not_delay_capture(agent, bucket, proxy):
    """Capture keeps its pace while upload hangs: they share a lock only for the time of a rename."""
    proxy.rule = lambda *_: "silent"
    agent.use_bucket(bucket, proxy.port)
    agent.configure(capture={"interval_s": 0.02})
    upload, capture = agent.start("upload"), agent.start("capture")
    until(lambda: "trying again" in agent.journal("upload"), "an upload has hung until its time-out")
    assert len(agent.acks()) > 50
    assert "uploaded " not in agent.journal("upload")
    agent.stop(capture)
    agent.stop(upload)


@pytest.mark.service
def test_damaged_files_are_set_aside(agent, bucket):
    """An SD card that ignores fsync: zero bytes, half a file, a flipped bit, and a foreign file."""
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", "6")
    names = agent.waiting()
    (agent.spool / "ready" / names[0]).write_bytes(b"")
    os.truncate(agent.spool / "ready" / names[1], 100)
    rotten = bytearray((agent.spool / "ready" / names[2]).read_bytes())
    rotten[-50] ^= 4
    (agent.spool / "ready" / names[2]).write_bytes(rotten)
    (agent.spool / "ready" / "notes.txt").write_text("hello")
    (agent.spool / "tmp" / names[3]).write_bytes(b"half a fra")
    (agent.spool / "capture.json").write_text('{"sequence": 1')
    agent.run("capture", "--once")
    assert {path.name for path in (agent.spool / "dead").glob("*.jpg")} == set(names[:2])
    assert "notes.txt" in agent.journal("capture") and not list((agent.spool / "tmp").iterdir())
    agent.run("upload", "--once")
    assert {path.name for path in (agent.spool / "dead").glob("*.jpg")} == set(names[:3])
    assert len(bucket.objects()) == 4
    assert len({ack.key.rpartition("_")[2] for ack in agent.acks()}) == 7, "a lost counter must not repeat a number"


CLOCKS = {
    "jumps": "device.clock.now = lambda: true() + datetime.timedelta("
    "days=random.choice((-400, -1, 0, 0, 1, 3650)), seconds=random.random())",
    "stands still": "fixed = true(); device.clock.now = lambda: fixed",
    "begins in 1970": "device.clock.now = lambda: "
    "datetime.datetime.fromtimestamp(time.monotonic() % 7, datetime.timezone.utc)",
}


@pytest.mark.service
@pytest.mark.parametrize("clock", CLOCKS)
def test_frames_keep_order_though_clock_jumps(agent, bucket, clock):
    """The clock jumps back and forth and repeats seconds. No key repeats, and uploads keep the order taken."""
    agent.use_bucket(bucket)
    driver = f"import datetime, random, time, device.clock; true = device.clock.now; random.seed(4); {CLOCKS[clock]}"
    agent.run("capture", "--frames", "20", driver=driver)
    agent.run("capture", "--frames", "20", driver=driver)
    agent.run("upload", "--once")
    assert reckon(agent, bucket.objects()) == 40
    sequences = [
        int(key.rpartition("_")[2][:-4])
        for word, key, _, _ in harness.LINE.findall(agent.journal("upload"))
        if word == "uploaded"
    ]
    assert sequences == sorted(sequences) and len(set(sequences)) == 40
    assert not [key for key in bucket.objects() if ":" in key]
