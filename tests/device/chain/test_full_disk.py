"""A full disk under the whole agent."""

import os
import subprocess

import harness
import pytest
from harness import reckon

pytestmark = pytest.mark.chain


@pytest.fixture
def small_disk(agent, tmp_path):
    """Mounts a disk of 2 MB under the spool."""
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", _made(agent.spool)], capture_output=True
        ).returncode
    ):
        pytest.skip("mounting a small disk needs root and the right to mount")
    yield agent.spool
    agent.stop_all()
    subprocess.run(["umount", "-l", str(agent.spool)], check=True)


def _made(folder):
    folder.mkdir()
    return str(folder)


@pytest.mark.parametrize("policy", ["oldest", "newest", "reject"])
def test_full_disk_follows_when_full_policy(agent, small_disk, tmp_path, policy):
    """The quota allows 100 MB, the disk has 2. The policy handles ENOSPC, and every promised frame is still there."""
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


def test_disk_filled_by_others_keeps_spooled_frames(agent, small_disk):
    """Dropping every frame would not restore the free space: keep the spool, and drop the new frame."""
    agent.configure(spool={"max_mb": 100.0, "free_mb": 1.0})
    agent.run("capture", "--frames", "10")
    (small_disk / "others").write_bytes(b"x" * 1_700_000)
    agent.run("capture", "--frames", "5", check=False)
    assert len(agent.waiting()) == 10 and agent.counters("capture")["dropped"] == 5


def test_failed_write_leaves_no_half_frame(agent, tmp_path):
    """A write fails in the middle of a frame, also without the right to mount: no half frame shows."""
    agent.configure(spool={"when_full": "newest"})
    limit = (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        "resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))"
    )
    agent.run("capture", "--frames", "14", check=False, driver=limit)
    sizes = [path.stat().st_size for path in (agent.spool / "ready").iterdir()]
    assert sizes and max(sizes) <= 6000 and not list((agent.spool / "tmp").iterdir())
    assert agent.counters("capture")["dropped"] == 14 - len(sizes)
