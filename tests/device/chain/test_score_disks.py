"""Full disks, the model's and the spool's: the last good model goes on scoring, and no result is lost or sent twice."""

import os
import subprocess

import bundles
import pytest
from harness import until
from steps import denied, lines, ready, shots, third_is_taken, used


@pytest.fixture
def small_disk(tmp_path, request):
    """A function that puts a disk of so many kB of its own at a path."""
    mounted = []

    def mount(path, kilobytes):
        path.mkdir(exist_ok=True)
        if (
            os.geteuid() != 0
            or subprocess.run(
                ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], capture_output=True
            ).returncode
        ):
            pytest.skip("a small disk of its own needs root and the right to mount")
        mounted.append(path)

    yield mount
    for path in mounted:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_no_room_for_a_model(scoring, small_disk, models):
    small_disk(scoring.model, 240)
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    done = scoring.run("sync", check=False)
    assert done.returncode == 75 and "the disk has less" in done.stderr
    assert used(scoring) == ("1", ["empty", "package"])
    third_is_taken(scoring)


def test_the_disk_fills_up_in_the_middle_of_a_model(scoring, models):
    """A write that fails with "file too large", as one with "no space left" does; nothing half is left."""
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "slow", variants=("float32",))
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100000, 100000))"
    done = scoring.run("sync", check=False, driver=limit)
    assert done.returncode == 75 and "the disk" in done.stderr and "Traceback" not in done.stderr
    assert not list((scoring.model / "b").rglob("*.tflite*"))
    assert used(scoring) == ("1", ["empty", "package"])


def fill(folder):
    """Leaves no byte free on the disk of a folder; a function that makes room again."""
    free = os.statvfs(folder)
    (folder / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    return (folder / "others").unlink


def test_the_models_disk_is_full(scoring, small_disk, models):
    """Nothing can be noted there; what scores goes on scoring, what is new waits, and what fails is given up all the same."""
    scoring.configure(model={"probation": 4})
    small_disk(scoring.model, 900)
    ready(scoring)
    bundles.publish(models, scoring.place, "2", "other", variants=("float32",))
    scoring.run("sync")
    make_room = fill(scoring.model)
    assert used(scoring) == ("1", ["empty", "package"]), "a switch that can't be written is none"
    make_room()
    assert used(scoring) == ("2", ["package", "empty"])
    make_room = fill(scoring.model)
    for _ in range(2):
        assert used(scoring) == ("2", ["package", "empty"])
    assert "active.json stays as it was" in scoring.journal("score")
    make_room()
    for _ in range(2):
        assert used(scoring) == ("2", ["package", "empty"])
    bundles.publish(models, scoring.place, "3", "nan", variants=("float32",), golden=(40, 90))
    scoring.run("sync")
    shots(scoring, 30)
    scoring.run("score", "--once")
    assert lines(scoring)[-1]["version"] == "3"
    make_room = fill(scoring.model)
    shots(scoring, 250, 30, 220)
    scoring.run("score", "--once")
    assert [line["version"] for line in lines(scoring)[-3:]] == [
        "2"
    ] * 3 and "denied.json stays as it was" in scoring.journal("score")
    assert "Traceback" not in scoring.journal("score")
    make_room()
    shots(scoring, 250)
    scoring.run("score", "--once")
    assert used(scoring) == ("2", ["package", "empty"]) and len(denied(scoring)) == 1, "and noted when there is room"


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_the_spools_disk_is_full(scoring, small_disk, policy):
    """Scoring and acting go on; when there is room again, results go home, each line once."""
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
    until(lambda: (scoring.folder / "acted").exists(), "it acts though the disk is full")
    until(
        lambda: "results wait in memory" in scoring.journal("score") or lines_in_spool(scoring), "the full disk was met"
    )
    make_room()
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "all frames are through")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    got = lines(scoring)
    assert {line["version"] for line in got} == {"1"} and len(got) == 40


def lines_in_spool(agent):
    return [name for name in agent.waiting() if name.endswith(".jsonl")]
