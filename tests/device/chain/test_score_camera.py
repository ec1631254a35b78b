"""score.camera = true: one process captures, scores, acts and passes on; nothing is lost or done twice."""

import json
import random
import signal
import time

import bundles
import harness
import pytest
from harness import kill_all, until
from steps import denied, doctor, images, lines, ready

pytestmark = pytest.mark.chain

HANG = (
    "import time, device.camera.folder as f; real = f.Camera.capture\n"
    "f.Camera.capture = lambda self: real(self) if self.frames < {frames} else time.sleep(60)"
)


@pytest.fixture
def alone(scoring):
    """The scoring agent with a confirmed model, whose score process drives the camera.

    The camera shows the brightnesses 30, 220, 60 and 200 in turn.
    """
    ready(scoring)
    folder = scoring.folder / "scene"
    folder.mkdir()
    for index, grey in enumerate((30, 220, 60, 200)):
        (folder / f"{index}.jpg").write_bytes(bundles.photo(grey))
    scoring.configure(
        camera={"folder": str(folder), "loop": True}, score={"camera": True}, capture={"interval_s": 0.02}
    )
    scoring.acks = lambda: [
        harness.Ack(key, int(size), digest)
        for word, key, size, digest in harness.LINE.findall(scoring.journal("score"))
        if word == "captured"
    ]
    return scoring


def reckon(agent, killed=False):
    """Checks that each promised frame has one line and one image, and that none waits; returns the lines.

    killed: a kill may come after a frame was kept and before its promise was printed; then there are more lines.
    """
    scored = lines(agent)
    promised = [ack.key for ack in agent.acks()]
    assert len(set(promised)) == len(promised)
    keys = [line["image"] for line in scored]
    assert keys == images(agent) and not any(line["error"] for line in scored)
    assert set(promised) <= set(keys) if killed else sorted(promised) == keys
    assert not list((agent.spool / "unscored").iterdir()) and not list((agent.spool / "dead").iterdir())
    return scored


@pytest.mark.parametrize("arguments, frames", [(["--frames", "6"], 6), (["--once"], 1)], ids=["--frames", "--once"])
def test_requested_frames_are_taken_scored_and_sent(alone, arguments, frames):
    alone.run("score", *arguments)
    assert [line["label"] for line in reckon(alone)] == (["empty", "package"] * 3)[:frames]
    assert alone.counters("capture")["captured"] == alone.counters("score")["scored"] == frames


def test_simulated_porch_is_scored_and_acted_on(alone):
    """Each change of the label causes an action; no image is sent."""
    alone.configure(
        camera={"kind": "simulated", "size": [160, 120]},
        feedback={"send": "none"},
        act={"command": ["sh", "-c", f"cat >> {alone.folder}/events"], "hold_off_s": 0.0},
    )
    alone.run("score", "--frames", "7")
    scored = lines(alone)
    assert len(scored) == 7 and images(alone) == [] and alone.counters("score")["figures_only"] == 7
    changes = sum(one["label"] != other["label"] for one, other in zip(scored, scored[1:]))
    assert alone.counters("score").get("acted", 0) == changes


def test_all_frames_are_scored_after_the_camera_ends(alone):
    alone.configure(camera={"loop": False}, capture={"interval_s": 0.0})
    slow = (
        "import time, device.model.edge_model as m; real = m.invoke; "
        "m.invoke = lambda *a: (time.sleep(0.3), real(*a))[1]"
    )
    alone.run("score", driver=slow)
    assert alone.counters("score")["scored"] == 4, "including the frames that waited when the camera ended"
    assert [line["label"] for line in reckon(alone)] == ["empty", "package"] * 2


def test_new_model_is_fetched_and_used_between_frames(alone):
    score = alone.start("score")
    until(lambda: len(alone.acks()) > 5, "frames are taken")
    bundles.publish(alone.models, alone.place, "2", "other")
    until(lambda: "model 2 has passed its probation" in alone.journal("score"), "version 2 is confirmed")
    assert alone.stop(score) == 0
    alone.configure(score={"camera": False})
    alone.run("score", "--once")  # scores the last frames, without the camera
    versions = [line["version"] for line in reckon(alone)]
    assert versions == sorted(versions) and set(versions) == {"1", "2"}


def test_second_process_is_refused_by_the_spools_locks(alone):
    score = alone.start("score")
    until(lambda: alone.acks(), "the first process runs")
    for command in ("capture", "score"):
        done = alone.run(command, "--once", check=False)
        assert done.returncode == 75 and "is running on" in done.stderr and "Traceback" not in done.stderr
    assert alone.stop(score) == 0


def test_running_capture_keeps_score_from_the_camera(alone):
    """score.camera becomes true while the capture service still runs: score refuses, and capture goes on."""
    alone.configure(score={"camera": False})
    capture = alone.start("capture")
    until(lambda: "captured" in alone.journal("capture"), "capture runs")
    alone.configure(score={"camera": True})
    done = alone.run("score", "--once", check=False)
    assert done.returncode == 75 and "another capture is running" in done.stderr and "Traceback" not in done.stderr
    assert alone.stop(capture) == 0


@pytest.mark.kill
def test_kills_at_random_moments_lose_no_frame(alone):
    rng = random.Random(4)
    for kill in range(40 if harness.SOAK else 6):
        before = len(alone.acks())
        score = alone.start("score")
        if kill % 3:
            until(lambda before=before: len(alone.acks()) > before, "it takes frames")
        time.sleep(rng.uniform(0.1, 0.8))
        kill_all(score)
    alone.configure(capture={"interval_s": 0.0}, camera={"loop": False})
    alone.run("score")
    assert len(reckon(alone, killed=True)) > 20


@pytest.mark.slow
def test_hanging_camera_is_no_strike_against_new_model(alone):
    """The camera hangs again and again while a new model is on probation. The model is not denied for that."""
    alone.configure(model={"probation": 500, "crashes": 1}, camera={"timeout_s": 3.0})
    bundles.publish(alone.models, alone.place, "2", "other")
    alone.run("sync")
    for _ in range(3):
        assert alone.run("score", check=False, driver=HANG.format(frames=3)).returncode == -signal.SIGALRM
    assert not denied(alone)
    record = json.loads((alone.model / "active.json").read_text())
    assert record["version"] == "2" and record["strikes"] == 0
    assert record["left"] < 500, "the frames before the hang count towards the probation"
    alone.run("score", "--once")
    assert {line["version"] for line in reckon(alone)} == {"2"}


def test_failed_camera_ends_score_and_loses_no_frame(alone):
    fail = (
        "import device.camera as c, device.camera.folder as f; real = f.Camera.capture\n"
        "def capture(self):\n    if self.frames == 5: raise c.CameraError('unplugged')\n    return real(self)\n"
        "f.Camera.capture = capture"
    )
    done = alone.run("score", check=False, driver=fail)
    assert done.returncode == 71 and "camera failed: unplugged" in done.stderr
    assert "camera failure: " in alone.run("status", check=False).stdout
    alone.run("score", "--once")
    assert len(reckon(alone)) == 6


def test_failed_scorer_ends_the_camera_too(alone):
    broken = (
        "import device.score.scorer as s\n"
        "def score_frame(self, entry):\n    raise OSError(5, 'Input/output error')\n"
        "s.Scorer._score_frame = score_frame"
    )
    done = alone.run("score", check=False, driver=broken, timeout=30)
    assert done.returncode == 1 and "Input/output error" in done.stderr
    alone.run("score", "--once")
    assert len(reckon(alone)) >= 2


def test_ready_comes_with_first_frame_then_watchdog_is_fed(alone):
    alone.configure(capture={"interval_s": 3600.0})
    with harness.NotifySocket(alone.folder) as systemd:
        process = alone.start("score", env=systemd.env(watchdog_s=3.0))
        until(
            lambda: systemd.heard().count("WATCHDOG=1") >= 3,
            "the watchdog is fed although the next frame is an hour away",
        )
        assert alone.stop(process) == 0
        assert systemd.heard()[0] == "READY=1" and "first frame" in systemd.heard()[1]
    assert len(alone.acks()) == 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "hang",
    [
        pytest.param("import time, device.model.edge_model as m; m.invoke = lambda *_: time.sleep(60)", id="model"),
        pytest.param(HANG.format(frames=2), id="camera"),
    ],
)
def test_watchdog_is_not_fed_while_one_loop_hangs(alone, hang):
    alone.configure(camera={"timeout_s": 60.0}, capture={"interval_s": 0.05})
    with harness.NotifySocket(alone.folder) as systemd:
        process = alone.start("score", driver=hang, env=systemd.env(watchdog_s=3.0))
        until(lambda: "READY=1" in systemd.heard(), "the first frame is taken")
        time.sleep(3.0)
        fed = systemd.heard().count("WATCHDOG=1")
        time.sleep(3.0)
        assert systemd.heard().count("WATCHDOG=1") == fed <= 3 and process.poll() is None
        process.kill()


def test_status_and_doctor_show_which_process_has_the_camera(alone):
    screen = alone.run("status", check=False).stdout
    assert "capture is not running: sudo systemctl start lakevision-score" in screen
    assert "lakevision-capture" not in screen
    score = alone.start("score")
    until(lambda: alone.acks(), "it takes frames")
    screen = alone.run("status", check=False).stdout
    assert "capture   running by score; camera folder" in screen and "score     running" in screen
    assert "not running: sudo systemctl start lakevision-score" not in screen
    assert "in use by the running capture" in doctor(alone)["camera"]
    assert alone.stop(score) == 0
