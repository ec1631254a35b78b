"""Capture: labels, rotation, pace, and cameras that fail."""

import io
import signal
import time

import pytest
from PIL import Image

from device.model import transform


def test_label_set_by_hand_is_last_field_of_key(agent):
    agent.configure(device={"label": "package"})
    agent.run("capture", "--once")
    assert agent.acks()[0].key.endswith("_package.jpg")


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_transform_undoes_rotation_of_camera(agent, rotation):
    """With a rotated camera, the model gets the pixels of the upright scene."""
    agent.configure(camera={"kind": "simulated", "size": [96, 96], "rotation": rotation})
    agent.run("capture", "--once")
    data = (agent.spool / "ready" / agent.waiting()[0]).read_bytes()
    sensor = Image.open(io.BytesIO(data)).convert("RGB")
    upright = sensor.rotate(-rotation, expand=True)
    assert transform.pixels(data, "decode|upright|rgb|resize(96)") == upright.tobytes()


CLOCKS = {
    "jumps": "device.clock.now = lambda: true() + datetime.timedelta("
    "days=random.choice((-400, -1, 0, 0, 1, 3650)), seconds=random.random())"
}


def test_interval_holds_though_wall_clock_jumps(agent):
    driver = f"import datetime, random, time, device.clock; true = device.clock.now; {CLOCKS['jumps']}"
    agent.configure(capture={"interval_s": 0.2})
    began = time.monotonic()
    agent.run("capture", "--frames", "6", driver=driver)
    assert time.monotonic() - began >= 1.0  # five intervals, whatever the wall clock shows


def test_hung_camera_ends_process_with_traceback(agent):
    """The camera ignores signals and holds the GIL. The process ends itself and prints where it hung."""
    agent.configure(camera={"timeout_s": 0.5})
    hang = (
        "import ctypes, device.camera.folder as f; "
        "f.Camera.capture = lambda self: ctypes.PyDLL(None).pause() or ctypes.PyDLL(None).sleep(600)"
    )
    process = agent.start("capture", driver=hang)
    assert process.wait(20) == -signal.SIGALRM
    assert "most recent call first" in agent.journal("capture") and "in _loop" in agent.journal("capture")
    agent.run("capture", "--once")
    assert agent.counters("capture")["unclean_stops"] == 1


@pytest.mark.parametrize("jpeg", [b"", b"\xff\xd8\xff\xe0 half", b"<html>"], ids=["empty", "half", "not a JPEG"])
def test_broken_picture_ends_process_with_71(agent, jpeg):
    driver = f"import device.camera as c, device.camera.folder as f; f.Camera.capture = lambda self: c.Frame({jpeg!r})"
    done = agent.run("capture", "--once", check=False, driver=driver)
    assert done.returncode == 71 and "not a whole JPEG" in done.stderr
    assert agent.waiting() == [] and "camera_failures" in agent.counters("capture")


def test_any_driver_exception_ends_process_with_71(agent):
    driver = "import device.camera.folder as f\ndef capture(self): raise KeyError('mmal')\nf.Camera.capture = capture"
    done = agent.run("capture", "--once", check=False, driver=driver)
    assert done.returncode == 71 and "KeyError: 'mmal'" in agent.counters("capture")["camera_error"]
    assert "KeyError" in agent.run("status", check=False).stdout
