"""The guard that ends a process with a hung driver."""

import signal
import subprocess
import sys

from harness import ROOT


def python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=30)


def test_block_that_hangs_with_gil_ends_process_with_traceback():
    done = python(
        "import ctypes\nfrom device.hang_guard import guard\n"
        "def hang(): ctypes.PyDLL(None).sleep(60)\n"
        "with guard(0.3): hang()"
    )
    assert done.returncode == -signal.SIGALRM and "in hang" in done.stderr


def test_block_in_time_leaves_process_alone():
    done = python(
        "import time\nfrom device.hang_guard import guard, time_left\n"
        "assert time_left() == float('inf')\n"
        "with guard(0.3): assert 0 < time_left() <= 0.3\n"
        "assert time_left() == float('inf')\ntime.sleep(0.5)"
    )
    assert done.returncode == 0, done.stderr
