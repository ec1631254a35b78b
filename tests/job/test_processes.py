"""Child processes end with the run, also those that ignore SIGTERM and those of a thread."""

import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

from lakevision.job import processes
from lakevision.platform.workspace import REPOSITORY

pytestmark = pytest.mark.kill
# Starts a child that ignores SIGTERM and has a child of its own; then ends them and prints how many are left.
PARENT = """
import subprocess, sys, psutil
from lakevision.job import processes
CHILD = '''
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("up", flush=True)
time.sleep(600)
'''
child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "up\\n"
tree = psutil.Process().children(recursive=True)
processes.PATIENCE = 0.5
processes.end_children()
_, alive = psutil.wait_procs(tree, timeout=5)
print(len(tree), len(alive))
"""


def test_children_that_ignore_sigterm_are_killed():
    environment = {**os.environ, "PYTHONPATH": f"{REPOSITORY / 'notebooks'}{os.pathsep}{REPOSITORY}"}
    done = subprocess.run([sys.executable, "-c", PARENT], capture_output=True, text=True, env=environment, timeout=60)
    assert done.stdout.split() == ["2", "0"], done.stderr


def test_in_thread_returns_the_result_and_raises_the_error():
    assert processes.in_thread(lambda number: (number, threading.current_thread().name), 3)[0] == 3
    assert processes.in_thread(threading.current_thread) is not threading.main_thread()
    with pytest.raises(ZeroDivisionError):
        processes.in_thread(lambda: 1 / 0)


def test_sigterm_acts_like_ctrl_c():
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        processes.interrupt_on_signals()
        with pytest.raises(KeyboardInterrupt):
            psutil.Process().send_signal(signal.SIGTERM)
            signal.sigtimedwait([], 1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
