"""score.camera = true: one process takes, scores, acts and passes on; nothing is taken, scored or lost twice,
whatever ends it.
"""

import json
import random
import signal
import time

import bundles
import harness
import pytest
from harness import kill_all, until
from steps import denied, doctor, images, lines, ready


@pytest.fixture
def alone(scoring):
    """The scoring agent with a confirmed model, whose score drives the camera; the camera shows 30, 220, 60, 200,
    over and over.
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
    """Each frame that was promised has one line and one image, and nothing waits; the lines.

    killed: a kill may come between keeping a frame and saying so; that frame is there all the same.
    """
    got = lines(agent)
    kept = [ack.key for ack in agent.acks()]
    assert len(set(kept)) == len(kept)
    scored = [line["image"] for line in got]
    assert scored == images(agent) and not any(line["error"] for line in got)
    assert set(kept) <= set(scored) if killed else sorted(kept) == scored
    assert not list((agent.spool / "unscored").iterdir()) and not list((agent.spool / "dead").iterdir())
    return got


@pytest.mark.parametrize("arguments, frames", [(["--frames", "6"], 6), (["--once"], 1)], ids=["so many", "once"])
def test_so_many_frames_are_taken_scored_and_passed_on(alone, arguments, frames):
    alone.run("score", *arguments)
    assert [line["label"] for line in reckon(alone)] == (["empty", "package"] * 3)[:frames]
    assert alone.counters("capture")["captured"] == alone.counters("score")["scored"] == frames


def test_the_simulated_porch(alone):
    """A real scene, a change of the label acted on, and only what teaches comes home."""
    alone.configure(
        camera={"kind": "simulated", "size": [160, 120]},
        feedback={"send": "none"},
        act={"command": ["sh", "-c", f"cat >> {alone.folder}/events"], "hold_off_s": 0.0},
    )
    alone.run("score", "--frames", "7")
    got = lines(alone)
    assert len(got) == 7 and images(alone) == [] and alone.counters("score")["figures_only"] == 7
    changes = sum(one["label"] != other["label"] for one, other in zip(got, got[1:]))
    assert alone.counters("score").get("acted", 0) == changes


def test_a_replay_that_ends_is_scored_to_its_end(alone):
    alone.configure(camera={"loop": False}, capture={"interval_s": 0.0})
    slow = "import time, device.model.edge_model as m; real = m.invoke; m.invoke = lambda *a: (time.sleep(0.3), real(*a))[1]"
    alone.run("score", driver=slow)
    assert alone.counters("score")["scored"] == 4, "those that waited when the camera had come to its end, too"
    assert [line["label"] for line in reckon(alone)] == ["empty", "package"] * 2


def test_a_new_model_is_fetched_and_taken_between_frames(alone):
    score = alone.start("score")
    until(lambda: len(alone.acks()) > 5, "frames are taken")
    bundles.publish(alone.models, alone.place, "2", "other")
    until(lambda: "model 2 has passed its probation" in alone.journal("score"), "version 2 is confirmed")
    assert alone.stop(score) == 0
    alone.configure(score={"camera": False})
    alone.run("score", "--once")  # what the last moment left, by a process without the camera
    versions = [line["version"] for line in reckon(alone)]
    assert versions == sorted(versions) and set(versions) == {"1", "2"}


def test_no_second_one_takes_or_scores(alone):
    """Neither capture nor score nor a second of the kind: the spool's locks keep them out."""
    score = alone.start("score")
    until(lambda: alone.acks(), "the first one runs")
    for command in ("capture", "score"):
        done = alone.run(command, "--once", check=False)
        assert done.returncode == 75 and "is running on" in done.stderr and "Traceback" not in done.stderr
    assert alone.stop(score) == 0


def test_a_capture_that_runs_keeps_it_out_and_goes_on_being_scored(alone):
    """Set to true while the service capture still runs: it says so, and takes nothing away from it."""
    alone.configure(score={"camera": False})
    capture = alone.start("capture")
    until(lambda: "captured" in alone.journal("capture"), "capture runs")
    alone.configure(score={"camera": True})
    done = alone.run("score", "--once", check=False)
    assert done.returncode == 75 and "another capture is running" in done.stderr and "Traceback" not in done.stderr
    assert alone.stop(capture) == 0


def test_killed_at_random_moments(alone):
    rng = random.Random(4)
    for kill in range(40 if harness.SOAK else 6):
        said = len(alone.acks())
        score = alone.start("score")
        if kill % 3:
            until(lambda: len(alone.acks()) > said, "it takes frames")
        time.sleep(rng.uniform(0.1, 0.8))
        kill_all(score)
    alone.configure(capture={"interval_s": 0.0}, camera={"loop": False})
    alone.run("score")
    assert len(reckon(alone, killed=True)) > 20


HANG = (
    "import time, device.camera.folder as f; real = f.Camera.capture\n"
    "f.Camera.capture = lambda self: real(self) if self.frames < {frames} else time.sleep(60)"
)


def test_a_camera_that_hangs_ends_the_process_and_is_no_strike_against_the_model(alone):
    """Again and again while a new model is on probation: it is not denied for that."""
    alone.configure(model={"probation": 500, "crashes": 1}, camera={"timeout_s": 3.0})
    bundles.publish(alone.models, alone.place, "2", "other")
    alone.run("sync")
    for _ in range(3):
        assert alone.run("score", check=False, driver=HANG.format(frames=3)).returncode == -signal.SIGALRM
    assert not denied(alone)
    record = json.loads((alone.model / "active.json").read_text())
    assert record["version"] == "2" and record["strikes"] == 0 and record["left"] < 500, (
        "frames it was watched for count"
    )
    alone.run("score", "--once")
    assert {line["version"] for line in reckon(alone)} == {"2"}


def test_a_camera_that_fails_ends_it_with_its_status_and_what_was_taken_is_not_lost(alone):
    fail = (
        "import device.camera as c, device.camera.folder as f; real = f.Camera.capture\n"
        "def capture(self):\n    if self.frames == 5: raise c.CameraError('unplugged')\n    return real(self)\nf.Camera.capture = capture"
    )
    done = alone.run("score", check=False, driver=fail)
    assert done.returncode == 71 and "camera failed: unplugged" in done.stderr
    assert "camera failure: " in alone.run("status", check=False).stdout
    alone.run("score", "--once")
    assert len(reckon(alone)) == 6


def test_a_scorer_that_fails_ends_the_camera_too(alone):
    broken = "import device.score.scorer as s\ndef frame(self, entry):\n    raise OSError(5, 'Input/output error')\ns.Scorer._score_frame = frame"
    done = alone.run("score", check=False, driver=broken, timeout=30)
    assert done.returncode == 1 and "Input/output error" in done.stderr
    alone.run("score", "--once")
    assert len(reckon(alone)) >= 2


def test_ready_with_the_first_frame_and_both_loops_feed_the_watchdog(alone):
    alone.configure(capture={"interval_s": 3600.0})
    with harness.NotifySocket(alone.folder) as systemd:
        process = alone.start("score", env=systemd.env(watchdog_s=3.0))
        until(
            lambda: systemd.heard().count("WATCHDOG=1") >= 3,
            "the watchdog is fed though the next frame is an hour away",
        )
        assert alone.stop(process) == 0
        assert systemd.heard()[0] == "READY=1" and "first frame" in systemd.heard()[1]
    assert len(alone.acks()) == 1


@pytest.mark.parametrize(
    "hang",
    ["import time, device.model.edge_model as m; m.invoke = lambda *_: time.sleep(60)", HANG.format(frames=2)],
    ids=["the model hangs", "the camera hangs"],
)
def test_one_loop_that_hangs_starves_the_watchdog(alone, hang):
    """Though the other one lives: half a scorer is none."""
    alone.configure(camera={"timeout_s": 60.0}, capture={"interval_s": 0.05})
    with harness.NotifySocket(alone.folder) as systemd:
        process = alone.start("score", driver=hang, env=systemd.env(watchdog_s=3.0))
        until(lambda: "READY=1" in systemd.heard(), "the first frame is there")
        time.sleep(3.0)
        fed = systemd.heard().count("WATCHDOG=1")
        time.sleep(3.0)
        assert systemd.heard().count("WATCHDOG=1") == fed <= 3 and process.poll() is None
        process.kill()


def test_status_and_doctor_know_who_drives_the_camera(alone):
    shown = alone.run("status", check=False).stdout
    assert (
        "capture is not running: sudo systemctl start lakevision-score" in shown and "lakevision-capture" not in shown
    )
    score = alone.start("score")
    until(lambda: alone.acks(), "it takes frames")
    shown = alone.run("status", check=False).stdout
    assert "capture   running by score; camera folder" in shown and "score     running" in shown
    assert "not running: sudo systemctl start lakevision-score" not in shown
    assert "in use by the running capture" in doctor(alone)["camera"]
    assert alone.stop(score) == 0


def test_doctor_tells_of_two_who_would_hold_the_camera(alone, monkeypatch):
    import subprocess

    from device import config
    from device import doctor as device_doctor

    states = {"lakevision-capture": "active", "lakevision-upload": "active", "lakevision-score": "active"}
    monkeypatch.setattr(device_doctor.shutil, "which", lambda _: "/bin/systemctl")
    monkeypatch.setattr(device_doctor.os.path, "isdir", lambda _: True)
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(
            command, 0, "".join(f"{states[unit]}\n" for unit in command[2:])
        ),
    )
    settings = config.load(alone.config)
    with pytest.raises(device_doctor.Bad, match="disable --now lakevision-capture"):
        device_doctor.services(settings)
    states["lakevision-capture"] = "inactive"
    assert device_doctor.services(settings) == "all 2 are active"
    settings.score.camera = False
    with pytest.raises(device_doctor.Bad, match="enable --now lakevision-capture;"):
        device_doctor.services(settings)


def test_settings_and_arguments_that_can_not_be(agent, alone):
    alone.configure(score={"camera": True, "enabled": False})
    done = alone.run("score", check=False)
    assert done.returncode == 78 and "score.camera" in done.stderr
    alone.configure(score={"camera": False, "enabled": True})
    done = alone.run("score", "--frames", "3", check=False)
    assert done.returncode == 64 and "score.camera is false" in done.stderr
    assert "--frames" in alone.run("score", "--help").stdout
