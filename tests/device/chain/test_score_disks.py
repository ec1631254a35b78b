"""Full disks, the model's and the spool's: the last good model keeps scoring; no result is lost or sent twice."""

import os
import subprocess

import bundles
import pytest
from harness import until
from steps import denied, lines, ready, shots, third_is_taken, used

pytestmark = pytest.mark.chain

GOOD, OTHER = ["empty", "package"], ["package", "empty"]  # labels of steps.used() by the two kinds of models


@pytest.fixture
def small_disk(tmp_path, request):
    """A function that mounts a disk of this many kB at a path. Skips the test without root."""
    mounted = []

    def mount(path, kilobytes):
        path.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)]
        if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode:
            pytest.skip("mounting a small disk needs root and the right to mount")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(folder):
    """Leaves no free byte on the disk of a folder; returns a function that frees the room again."""
    free = os.statvfs(folder)
    (folder / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    return (folder / "others").unlink


def test_model_too_large_for_the_disk_is_not_fetched(scoring, small_disk, models):
    small_disk(scoring.model, 240)
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    done = scoring.run("sync", check=False)
    assert done.returncode == 75 and "the disk has less" in done.stderr
    assert used(scoring) == ("1", GOOD)
    third_is_taken(scoring)


def test_disk_full_during_fetch_leaves_no_partial_model(scoring, models):
    """A write fails with "file too large", which the code handles like "no space left"."""
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))"
    )
    done = scoring.run("sync", check=False, driver=limit)
    assert done.returncode == 75 and "the disk" in done.stderr and "Traceback" not in done.stderr
    assert not list((scoring.model / "b").rglob("*.tflite*"))
    assert used(scoring) == ("1", GOOD)


def test_full_model_disk_delays_swaps_but_not_scoring(scoring, small_disk, models):
    """Nothing can be written there. Scoring goes on, a new model waits, and a bad model is dropped all the same."""
    scoring.configure(model={"probation": 4})
    small_disk(scoring.model, 900)
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "other", variants=("float32",))
    scoring.run("sync")
    make_room = fill(scoring.model)
    assert used(scoring) == ("1", GOOD), "without room to record the switch, there is no switch"
    make_room()
    assert used(scoring) == ("2", OTHER)
    make_room = fill(scoring.model)
    for _ in range(2):
        assert used(scoring) == ("2", OTHER)
    assert "active.json stays as it was" in scoring.journal("score")
    make_room()
    for _ in range(2):
        assert used(scoring) == ("2", OTHER)
    bundles.publish(models, scoring.place, "3", "nan", variants=("float32",), golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30)
    scoring.run("score", "--once")
    assert lines(scoring)[-1]["version"] == "3"
    make_room = fill(scoring.model)
    shots(scoring, 250, 30, 220)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)[-3:]] == ["2"] * 3
    assert "denied.json stays as it was" in scoring.journal("score")
    assert "Traceback" not in scoring.journal("score")
    make_room()
    shots(scoring, 250)
    scoring.run("score", "--once")
    assert used(scoring) == ("2", OTHER) and len(denied(scoring)) == 1, "the denial is recorded once there is room"


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_full_spool_disk_delays_results_and_loses_none(scoring, small_disk, policy):
    """Scoring and acting go on. When there is room again, each line is sent once."""
    ready(scoring)
    scoring.stop_all()
    for path in sorted(scoring.spool.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    small_disk(scoring.spool, 600)
    scoring.configure(
        spool={"when_full": policy, "max_mb": 100.0},
        feedback={"send": "none"},
        act={"command": ["sh", "-c", f"echo $LAKEVISION_LABEL >> {scoring.folder}/acted"], "hold_off_s": 0.0},
    )
    shots(scoring, *[30, 220] * 20)
    make_room = fill(scoring.spool)
    score = scoring.start("score")
    until(lambda: (scoring.folder / "acted").exists(), "it acts although the disk is full")
    until(
        lambda: (
            "results wait in memory" in scoring.journal("score")
            or any(name.endswith(".jsonl") for name in scoring.waiting())
        ),
        "it meets the full disk",
    )
    make_room()
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "all frames are scored")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    scored = lines(scoring)
    assert {line["version"] for line in scored} == {"1"} and len(scored) == 40
