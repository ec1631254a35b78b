"""The legacy camera, with picamera 1.13's own Python code.

fake_pi/mmal_library.py replaces the firmware's libraries.
"""

import io
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from PIL import ExifTags, Image
from steps import drives_the_camera

FAKE = Path(__file__).parents[1] / "fake_pi"
DRIVER = "import mmal_library; mmal_library.install()"


@pytest.fixture(scope="session")
def package():
    """picamera 1.13, unpacked from the package index's source distribution once."""
    folder = Path(tempfile.gettempdir()) / f"lakevision-picamera-{os.getuid()}"
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
                "--no-binary",
                "picamera",
                "picamera==1.13",
            ],
            capture_output=True,
            text=True,
            timeout=180,
            env={**os.environ, "READTHEDOCS": "True"},
        )
        if done.returncode:
            pytest.skip(f"picamera cannot be fetched: {done.stderr.strip()[-200:]}")
        (folder / ".ready").touch()
    return folder


@pytest.fixture
def pi(agent, package):
    agent.configure(camera={"kind": "picamera", "size": [640, 480], "warm_up_s": 0.2, "timeout_s": 5.0})
    agent.env = {"PYTHONPATH": os.pathsep.join((str(FAKE), str(package)))}
    return agent


def photographs(agent):
    return [Image.open(io.BytesIO((agent.spool / "ready" / name).read_bytes())) for name in agent.waiting()]


def test_frames_with_camera_settings_in_exif(pi):
    pi.run("capture", "--frames", "4", driver=DRIVER, env=pi.env)
    images = photographs(pi)
    assert len(images) == 4
    for image in images:
        image.load()
        assert image.size == (640, 480)
    tags = images[0].getexif()
    photo = tags.get_ifd(ExifTags.IFD.Exif)
    assert tags[ExifTags.Base.Model] == "RP_imx219" and photo[ExifTags.Base.ISOSpeedRatings] == 200
    assert b"gain_r=1.50 gain_b=1.25" in photo[ExifTags.Base.MakerNote]


def test_exposure_is_held_between_frames(pi):
    pi.run("capture", "--frames", "5", driver=DRIVER, env=pi.env)
    assert (
        len({image.getexif().get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.ExposureTime] for image in photographs(pi)}) == 1
    )


def test_missing_camera_names_remedy(pi):
    done = pi.run("capture", "--once", check=False, driver=DRIVER, env={**pi.env, "FAKE_CAMERA": "none"})
    assert done.returncode == 71 and "vcgencmd get_camera" in done.stderr


def test_hung_encoder_ends_process(pi):
    """picamera waits for ever; the agent does not."""
    pi.configure(camera={"timeout_s": 0.8})
    done = pi.run("capture", "--once", check=False, driver=DRIVER, env={**pi.env, "FAKE_CAMERA": "hang"}, timeout=30)
    assert done.returncode == -14 and "picamera" in done.stderr and pi.waiting() == []


def test_score_drives_picamera(pi, scoring):
    """The threads of the driver, of LiteRT and of the agent share one process."""
    drives_the_camera(pi, scoring, driver=DRIVER, env=pi.env)
    pi.configure(camera={"timeout_s": 0.8})
    done = pi.run("score", check=False, driver=DRIVER, env={**pi.env, "FAKE_CAMERA": "hang"}, timeout=30)
    assert done.returncode == -14 and "picamera" in done.stderr


def test_missing_library_names_apt_command(agent, package):
    """On x86 and on any 64-bit Pi OS the import raises OSError, not ImportError."""
    agent.configure(camera={"kind": "picamera"})
    done = agent.run("capture", "--once", check=False, env={"PYTHONPATH": str(package)})
    assert (
        done.returncode == 71
        and "libbcm_host.so" in done.stderr
        and "sudo apt install -y python3-picamera" in done.stderr
    )
    assert "use picamera2" in done.stderr and "Traceback" not in done.stderr
