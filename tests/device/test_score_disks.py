"""Full disks, the model's and the spool's: the last good model goes on scoring, and no result is lost or sent twice."""

import os
import subprocess

import pytest

import bundles
from harness import until
from steps import lines, ready, shots, third_is_taken, used


@pytest.fixture
def small_disk(tmp_path, request):
    """A function that puts a disk of so many kB of its own at a path."""
    mounted = []

    def mount(path, kilobytes):
        path.mkdir(exist_ok=True)
        if os.geteuid() != 0 or subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(path)], capture_output=True).returncode:
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


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_the_spools_disk_is_full(scoring, small_disk, policy):
    """Scoring and acting go on; when there is room again, results go home, each line once."""
    ready(scoring)
    scoring.stop_all()
    for path in sorted(scoring.spool.rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    small_disk(scoring.spool, 600)
    scoring.configure(spool={"when_full": policy, "max_mb": 100.0}, feedback={"send": "none"},
                      act={"command": ["sh", "-c", f"echo $LAKEVISION_LABEL >> {scoring.folder}/acted"], "hold_off_s": 0.0})
    shots(scoring, *[30, 220] * 20)
    free = os.statvfs(scoring.spool)
    (scoring.spool / "others").write_bytes(b"x" * (free.f_bavail * free.f_frsize))
    score = scoring.start("score")
    until(lambda: (scoring.folder / "acted").exists(), "it acts though the disk is full")
    until(lambda: "results wait in memory" in scoring.journal("score") or lines_in_spool(scoring), "the full disk was met")
    (scoring.spool / "others").unlink()
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "all frames are through")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    got = lines(scoring)
    assert {line["version"] for line in got} == {"1"} and len(got) == 40


def lines_in_spool(agent):
    return [name for name in agent.waiting() if name.endswith(".jsonl")]
