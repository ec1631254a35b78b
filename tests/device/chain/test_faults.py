"""The store, the disk and the clock misbehave; the reckoning at the end is always the same."""

import os
import signal
import subprocess
import time

import harness
import pytest
import s3
from harness import reckon, until
from s3 import s3_error

FRAMES = 15


def test_store_down_for_a_while(agent, bucket):
    """Nobody listens at first; frames go on being taken, and all of them arrive when somebody does."""
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
def test_store_misbehaves(agent, bucket, proxy, rule, word):
    proxy.rule = rule
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", str(FRAMES))
    upload = agent.start("upload")
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == FRAMES
    assert word in agent.journal("upload")


def test_a_slow_store_never_delays_a_capture(agent, bucket, proxy):
    """Capture's pace with an upload that hangs: it doesn't share so much as a lock with it for longer than a rename."""
    proxy.rule = lambda *_: "silent"
    agent.use_bucket(bucket, proxy.port)
    agent.configure(capture={"interval_s": 0.02})
    upload, capture = agent.start("upload"), agent.start("capture")
    until(lambda: "trying again" in agent.journal("upload"), "an upload has hung until its time-out")
    assert len(agent.acks()) > 50
    assert "uploaded " not in agent.journal("upload")
    agent.stop(capture)
    agent.stop(upload)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            (400, s3_error("ExpiredToken", "The provided token has expired.")), id="S3 expired, which is a 400"
        ),
        pytest.param((403, s3_error("AccessDenied")), id="403"),
        pytest.param((401, "who are you"), id="401"),
        pytest.param((403, s3_error("RequestTimeTooSkewed")), id="clock off"),
        pytest.param((404, s3_error("NoSuchBucket")), id="no bucket"),
        pytest.param((301, s3_error("PermanentRedirect")), id="wrong region"),
    ],
)
def test_denied_pauses_and_says_so(agent, bucket, proxy, answer):
    denied = [True]
    proxy.rule = lambda method, path, number: answer if denied[0] else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "5")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("DENIED") >= 2, "upload says that it is denied, and asks again")
    assert len(proxy.requests) <= agent.journal("upload").count("DENIED") + 1, "one request a pause, not one a frame"
    status = agent.run("status", check=False)
    assert status.returncode == 1 and "upload is paused" in status.stdout
    denied[0] = False  # somebody renews the credentials
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == 5
    assert "the store takes frames again" in agent.journal("upload")
    assert "paused" not in agent.run("status", check=False).stdout


def test_one_refused_frame_holds_up_nobody_and_goes_to_dead(agent, bucket, proxy):
    agent.run("capture", "--frames", "5")
    bad = agent.acks()[1].key
    proxy.rule = lambda method, path, number: (
        (400, s3_error("InvalidArgument")) if bad.rpartition("_")[2] in path else "pass"
    )
    agent.use_bucket(bucket, proxy.port)
    agent.configure(capture={"interval_s": 0.1})
    upload, capture = agent.start("upload"), agent.start("capture")
    until(lambda: "set aside" in agent.journal("upload"), "the refused frame is set aside")
    agent.stop(capture)
    until(lambda: not agent.waiting(), "the others arrive")
    agent.stop(upload)
    stored = bucket.objects()
    assert set(stored) == {ack.key for ack in agent.acks()} - {bad}
    names = sorted(path.name for path in (agent.spool / "dead").iterdir())
    assert len(names) == 2 and names[1] == names[0] + ".reason"
    assert "while others were accepted" in (agent.spool / "dead" / names[1]).read_text()


def test_too_large_goes_to_dead_at_once(agent, bucket, proxy):
    proxy.rule = lambda method, path, number: (413, s3_error("EntityTooLarge")) if number == 1 else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "3")
    agent.run("upload", "--once")
    assert len(bucket.objects()) == 2 and len(list((agent.spool / "dead").glob("*.jpg"))) == 1


def test_refusals_of_all_frames_kill_none(agent, bucket, proxy):
    """A code nobody knows, for every frame: that is the set-up, and dead/ stays empty."""
    proxy.rule = lambda *_: (400, s3_error("SomethingNew"))
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "20")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("refusals in a row") >= 2, "upload pauses")
    agent.stop(upload)
    assert len(agent.waiting()) == 20
    proxy.rule = lambda *_: "pass"
    agent.run("upload", "--once")
    assert reckon(agent, bucket.objects()) == 20


def test_another_object_at_the_key_is_never_overwritten(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", "3")
    taken = agent.acks()[0].key
    bucket.put(taken, b"somebody else's")
    agent.run("upload", "--once")
    assert bucket.objects()[taken] == b"somebody else's"
    reasons = [path.read_text() for path in (agent.spool / "dead").glob("*.reason")]
    assert len(reasons) == 1 and "another object of 15 bytes" in reasons[0]


def test_truncated_and_rotten_files_are_set_aside(agent, bucket):
    """An SD card that ignores fsync: zero bytes, half a file, a flipped bit, and a stranger's file."""
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
    assert len({ack.key.rpartition("_")[2] for ack in agent.acks()}) == 7, "a lost counter must not give a number twice"


@pytest.fixture
def small_disk(agent, tmp_path):
    """The spool on a disk of 2 MB of its own."""
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", _made(agent.spool)], capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk of its own needs root and the right to mount")
    yield agent.spool
    agent.stop_all()
    subprocess.run(["umount", "-l", str(agent.spool)], check=True)


def _made(folder):
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_disk_full(agent, small_disk, tmp_path, policy):
    """The quota would allow 100 MB, the disk has 2: ENOSPC is met by the policy, and what was promised is still there."""
    landing = tmp_path / "landing"
    landing.mkdir()
    agent.configure(spool={"max_mb": 100.0, "when_full": policy}, store={"url": str(landing)})
    done = agent.run("capture", "--frames", "400", check=False)
    assert "Traceback" not in done.stderr
    counters = agent.counters("capture")
    if policy == "reject":
        assert counters["refused"] > 0 and "dropped" not in counters and done.returncode == 75
        assert "not taking pictures until upload makes room" in done.stderr
    else:
        assert counters["dropped"] == len(agent.acks("dropped")) > 0
    first_kept = agent.waiting()[0]
    assert ("_000001~" in first_kept) == (policy != "oldest")
    agent.run("upload", "--once")
    assert reckon(agent, harness.read_folder(landing)) > 100
    again = agent.run("capture", "--frames", "3")
    assert again.stdout.count("captured") == 3


def test_disk_filled_by_others(agent, small_disk):
    """To drop every frame would not bring the floor back: the spool is kept, and the new frame is dropped."""
    agent.configure(spool={"max_mb": 100.0, "free_mb": 1.0})
    agent.run("capture", "--frames", "10")
    (small_disk / "others").write_bytes(b"x" * 1_700_000)
    agent.run("capture", "--frames", "5", check=False)
    assert len(agent.waiting()) == 10 and agent.counters("capture")["dropped"] == 5


def test_file_size_limit(agent, tmp_path):
    """A write that fails in the middle of a frame, where no small disk can be mounted: half frames never show."""
    agent.configure(spool={"when_full": "newest"})
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    agent.run("capture", "--frames", "14", check=False, driver=limit)
    sizes = [path.stat().st_size for path in (agent.spool / "ready").iterdir()]
    assert sizes and max(sizes) <= 6000 and not list((agent.spool / "tmp").iterdir())
    assert agent.counters("capture")["dropped"] == 14 - len(sizes)


CLOCKS = {
    "jumps": "device.clock.now = lambda: true() + datetime.timedelta(days=random.choice((-400, -1, 0, 0, 1, 3650)), seconds=random.random())",
    "stands still": "fixed = true(); device.clock.now = lambda: fixed",
    "begins in 1970": "device.clock.now = lambda: datetime.datetime.fromtimestamp(time.monotonic() % 7, datetime.timezone.utc)",
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_wall_clock(agent, bucket, clock):
    """Back, forth, duplicate seconds: the pace stays, no key comes twice, and uploads go in the order taken."""
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


def test_interval_is_kept_by_the_monotonic_clock(agent):
    driver = f"import datetime, random, time, device.clock; true = device.clock.now; {CLOCKS['jumps']}"
    agent.configure(capture={"interval_s": 0.2})
    began = time.monotonic()
    agent.run("capture", "--frames", "6", driver=driver)
    assert time.monotonic() - began >= 1.0  # five intervals: never sooner, whatever the clock says


def test_camera_hangs(agent):
    """A camera that never answers, deaf to signals and with Python's lock held: the process ends itself and shows where."""
    agent.configure(camera={"timeout_s": 0.5})
    hang = "import ctypes, device.camera.folder as f; f.Camera.capture = lambda self: ctypes.PyDLL(None).pause() or ctypes.PyDLL(None).sleep(600)"
    process = agent.start("capture", driver=hang)
    assert process.wait(20) == -signal.SIGALRM
    assert "most recent call first" in agent.journal("capture") and "in _loop" in agent.journal("capture")
    agent.run("capture", "--once")
    assert agent.counters("capture")["unclean_stops"] == 1


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff\xe0 half", b"<html>"], ids=["empty", "half", "not a JPEG"])
def test_camera_gives_no_picture(agent, jpeg):
    driver = f"import device.camera as c, device.camera.folder as f; f.Camera.capture = lambda self: c.Frame({jpeg!r})"
    done = agent.run("capture", "--once", check=False, driver=driver)
    assert done.returncode == 71 and "not a whole JPEG" in done.stderr
    assert agent.waiting() == [] and "camera_failures" in agent.counters("capture")


def test_a_driver_that_raises_anything(agent):
    driver = "import device.camera.folder as f\ndef capture(self): raise KeyError('mmal')\nf.Camera.capture = capture"
    done = agent.run("capture", "--once", check=False, driver=driver)
    assert done.returncode == 71 and "KeyError: 'mmal'" in agent.counters("capture")["camera_error"]
    assert "KeyError" in agent.run("status", check=False).stdout
