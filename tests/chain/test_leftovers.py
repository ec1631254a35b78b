"""A run cleans up behind itself, and locks are shared by all runs of a machine."""

import subprocess
import sys

import pytest

from lakevision.platform import workspace


def test_run_leaves_nothing_in_the_temporary_folder(chain, chain_temporary):
    """Autograph files, rank folders, zips and lock files of kernels, Spark workers and ranks are gone."""
    assert [str(path.relative_to(chain_temporary)) for path in chain_temporary.rglob("*")] == []


@pytest.mark.parametrize("fails", [False, True], ids=["finished", "failed"])
def test_killed_child_leaves_nothing_behind(tmp_path, fails):
    script = f"""
import os, subprocess, sys, tempfile
sys.path.insert(0, {str(workspace.REPOSITORY / "notebooks")!r})
from lakevision.job import processes
from lakevision.platform import locks
with processes.temporary_folder():
    child = "import tempfile, time; tempfile.mkdtemp(); print(1, flush=True); time.sleep(99)"
    process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
    process.stdout.readline()
    assert tempfile.gettempdir() != {str(tmp_path)!r} == str(locks.folder())
    assert os.listdir(tempfile.gettempdir())
    if {fails}:
        raise SystemExit(3)
assert tempfile.gettempdir() == {str(tmp_path)!r}
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env={"TMPDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}, timeout=60
    )
    assert done.returncode == (3 if fails else 0) and list(tmp_path.iterdir()) == []
