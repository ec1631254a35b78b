"""Runs that are resumed, that fail in a cell, or that are stopped by Ctrl-C."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from lakevision.platform.workspace import REPOSITORY

pytestmark = pytest.mark.chain


def test_resumed_run_adds_nothing_twice(chain, command, run_folder):
    root, before, _ = chain
    done = command("--only", "02_ingest", "--set", f"storage.root={root}")
    assert done.returncode == 0, done.stderr[-3000:]
    after = json.loads((run_folder(done) / "summary.json").read_text())
    assert [notebook["name"] for notebook in after["notebooks"]] == ["02_ingest"]
    assert after["ingest"]["images"] == 64 and after["ingest"]["new"] == 0 and after["train"] == before["train"]


def test_failing_cell_is_named_and_earlier_work_is_kept(command, run_folder, tmp_path):
    done = command(
        "--set",
        f"storage.root={tmp_path}",
        "--set",
        "capture.photographs=4",
        "--set",
        "capture.size=64",
        "--set",
        "training.transform='decode|rgb|nonsense|resize(32)'",
        "--from",
        "01_capture",
    )
    assert done.returncode == 1
    assert "03_train failed in cell" in done.stderr and "Put the images into class folders" in done.stderr
    summary = json.loads((run_folder(done) / "summary.json").read_text())
    assert [notebook["status"] for notebook in summary["notebooks"]] == ["ok", "ok", "failed", "not run", "not run"]
    assert summary["ingest"]["images"] == 4 and (tmp_path / "warehouse" / "images").is_dir()
    assert "stopped in cell" in (run_folder(done) / "index.html").read_text()


@pytest.mark.kill
def test_ctrl_c_leaves_no_process_behind(run_folder, tmp_path):
    process = subprocess.Popen(
        [
            sys.executable,
            str(REPOSITORY / "notebooks/run.py"),
            "--only",
            "02_ingest",
            "--set",
            f"storage.root={tmp_path}",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    tree = []
    for _ in range(600):  # until the kernel has started its JVM
        tree = psutil.Process(process.pid).children(recursive=True)
        if any(child.name() == "java" for child in tree):
            break
        time.sleep(0.1)
    else:
        pytest.fail("no JVM came up")
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, out + err
    _, alive = psutil.wait_procs(tree, timeout=10)
    assert not alive, [child.cmdline() for child in alive]
    assert (run_folder(out) / "summary.json").exists()
