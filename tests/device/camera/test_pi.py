"""The picamera2 camera, with picamera2's own Python code.

fake_pi/libcamera.py replaces the C++ library and the sensor.
"""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import harness
import pytest
from PIL import ExifTags, Image
from steps import drives_the_camera, images, lines

from device import exif

FAKE = Path(__file__).parents[1] / "fake_pi"
PACKAGES = ["picamera2==0.3.38", "piexif==1.1.3", "videodev2==0.0.4", "simplejpeg==1.8.2"]
DRIVER = "import driver; driver.memory_for_dma()"


@pytest.fixture(scope="session")
def packages():
    """picamera2 and its pure Python requirements, from the package index once, kept in the temporary folder."""
    folder = Path(tempfile.gettempdir()) / f"lakevision-picamera2-{os.getuid()}"
    if not (folder / ".ready").exists():
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--disable-pip-version-check",
                "--no-deps",
                "--upgrade",
                "--target",
                str(folder),
                *PACKAGES,
            ],
            capture_output=True,
            text=True,
            timeout=180,
        )
        if done.returncode:
            pytest.skip(f"picamera2 cannot be fetched: {done.stderr.strip()[-200:]}")
        (folder / ".ready").touch()
    try:
        import numpy  # noqa: F401
    except ImportError:
        pytest.skip("picamera2 needs numpy")
    return folder


@pytest.fixture
def pi(agent, packages):
    """An agent with a Pi camera; run it with pi.env."""
    agent.configure(camera={"kind": "picamera2", "size": [600, 400], "warm_up_s": 0.4, "timeout_s": 5.0})
    agent.env = {"PYTHONPATH": os.pathsep.join((str(FAKE), str(packages)))}
    return agent


def photographs(agent):
    return [Image.open(io.BytesIO((agent.spool / "ready" / name).read_bytes())) for name in agent.waiting()]


def test_frames_with_camera_settings_in_exif(pi):
    pi.run("capture", "--frames", "4", driver=DRIVER, env=pi.env)
    images = photographs(pi)
    assert len(images) == 4 and all(image.size == (600, 400) for image in images)
    tags = images[0].getexif()
    photo = tags.get_ifd(ExifTags.IFD.Exif)
    assert tags[ExifTags.Base.Make] == "RaspberryPi" and tags[ExifTags.Base.Model] == "RP_imx219"
    assert photo[ExifTags.Base.ISOSpeedRatings] == 200 and photo[ExifTags.Base.ExposureMode] == 1
    assert b"gain_r=1.70 gain_b=1.30 lux=212" in photo[ExifTags.Base.MakerNote]
    assert exif.agent_facts(tags)["sequence"] == 1
    left, right = images[0].getpixel((5, 200)), images[0].getpixel((594, 200))
    assert max(left) < 20 and min(right) > 230, "lines are not skewed by the padding"


def test_exposure_settles_before_it_is_held(pi):
    pi.run("capture", "--frames", "5", driver=DRIVER, env=pi.env)
    times = {float(image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime]) for image in photographs(pi)}
    assert len(times) == 1 and abs(times.pop() - 0.008) < 0.0002, "automatic exposure had settled before it was held"


def test_exposure_is_measured_again_without_reconfiguring(pi):
    pi.configure(camera={"hold_exposure_s": 0.2, "warm_up_s": 0.2}, capture={"interval_s": 0.15})
    driver = DRIVER + "; import atexit, libcamera; atexit.register(lambda: print('log', libcamera.Camera.log))"
    out = pi.run("capture", "--frames", "5", driver=driver, env=pi.env).stdout
    assert "log ['configure', 'release']" in out


def test_frame_is_exposed_after_capture_was_called(pi):
    """Frames take 0.2 s here. The frame under way when capture() is called would show an old scene."""
    driver = (
        DRIVER
        + """
import device.camera.pi as pi
from device import clock
capture = pi.Camera.capture
pi.Camera.capture = lambda self: (print("asked", clock.uptime()), capture(self))[1]
"""
    )
    pi.configure(capture={"interval_s": 0.45}, camera={"warm_up_s": 1.5})
    out = pi.run("capture", "--frames", "4", driver=driver, env={**pi.env, "FAKE_CAMERA_FRAME_S": "0.2"}).stdout
    called = [float(line.split()[1]) for line in out.splitlines() if line.startswith("asked")]
    for at, image in zip(called, photographs(pi)):
        tags = image.getexif()
        exposure = float(tags.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime])
        assert exif.agent_facts(tags)["uptime_s"] - exposure >= at - 0.02


@pytest.mark.parametrize(
    "fault, words",
    [
        pytest.param("none", "rpicam-hello --list-cameras", id="no camera"),
        pytest.param("busy", "only one program can hold a camera", id="held by another"),
        pytest.param("stall:60", "no frame within camera.timeout_s", id="cable comes loose"),
    ],
)
def test_camera_fault_ends_process_and_keeps_frames(pi, fault, words):
    pi.configure(camera={"timeout_s": 1.5})
    done = pi.run("capture", "--frames", "500", check=False, driver=DRIVER, env={**pi.env, "FAKE_CAMERA": fault})
    assert done.returncode in (71, -14) and (words in done.stderr or done.returncode == -14), done.stderr
    assert len(pi.acks()) == len(pi.waiting())


def test_score_drives_picamera2(pi, scoring):
    """The threads of the driver, of LiteRT and of the agent share one process."""
    drives_the_camera(pi, scoring, driver=DRIVER, env=pi.env)
    pi.configure(camera={"timeout_s": 1.5})
    done = pi.run("score", check=False, driver=DRIVER, env={**pi.env, "FAKE_CAMERA": "stall:60"})
    assert done.returncode in (71, -14), done.stderr
    pi.run("score", "--once", driver=DRIVER, env=pi.env)
    assert len(lines(scoring)) == len(images(scoring)) >= 6, (
        "frames taken before the cable came loose are scored afterwards"
    )


def test_missing_picamera2_names_apt_command(agent):
    agent.configure(camera={"kind": "picamera2"})
    done = agent.run("capture", "--once", check=False, driver="sys.modules['picamera2'] = None")
    assert (
        done.returncode == 71
        and "sudo apt install -y --no-install-recommends python3-picamera2" in done.stderr
        and "Traceback" not in done.stderr
    )


SWALLOWED = """
import driver; driver.memory_for_dma()
import resource, signal
from picamera2 import Picamera2
camera = Picamera2()
camera.configure(camera.create_still_configuration(main={"size": (600, 400)}, buffer_count=1))
camera.start()
request = camera.capture_request()
resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000))
request.save("main", "half.jpg")
request.release()
camera.close()
"""


def test_agent_counts_drops_though_picamera2_ignores_full_disk(pi):
    """First shows the fault in picamera2's own code, then that the agent loses nothing by it."""
    env = {**os.environ, **pi.env}
    subprocess.run(
        [sys.executable, "-c", SWALLOWED], cwd=pi.folder, env=env, check=True, timeout=60, capture_output=True
    )
    half = (pi.folder / "half.jpg").read_bytes()
    assert len(half) <= 4000 and not half.endswith(b"\xff\xd9"), "half a picture, and no exception"
    limit = (
        DRIVER
        + """
import resource, device.camera.pi as pi
measure = pi.Camera._measure
pi.Camera._measure = lambda self: (measure(self), resource.setrlimit(resource.RLIMIT_FSIZE, (4000, 4000)))
"""
    )
    done = pi.run("capture", "--frames", "3", check=False, driver=limit, env=pi.env)
    assert done.stderr.count("dropped") == 3 and pi.waiting() == [] and pi.counters("capture")["dropped"] == 3
    pi.run("capture", "--frames", "2", driver=DRIVER, env=pi.env)
    for image in photographs(pi):
        image.load()
    assert len(pi.waiting()) == 2 and harness.LINE.findall(pi.journal("capture"))
