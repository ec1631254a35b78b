"""The cameras, behind one small interface; each is imported only when the config asks for it.

    camera = load(settings)     # the class for camera.kind; nothing is touched yet
    camera.open()               # finds the hardware, configures it once, warms up, holds exposure and white balance
    frame = camera.capture()    # a Frame
    camera.close()

Whatever goes wrong is a CameraError that says what to do. A call may hang for ever, against every signal (drivers do): the
caller keeps the time, see guard() in capture.py.
"""

import importlib
import time
from dataclasses import dataclass, field
from datetime import datetime

from device import clock

MODULES = {"picamera2": "pi", "picamera": "pi_legacy", "folder": "folder", "simulated": "simulated"}


class CameraError(Exception):
    """The camera is missing or failed; the message says what to do."""


class NoMoreFrames(Exception):
    """A replay that does not loop has come to its end."""


@dataclass(frozen=True)
class Frame:
    """One photograph. metadata: keyword arguments of exif.build (make, model, exposure_s, iso, ...), and label if the source knows it."""

    jpeg: bytes
    metadata: dict = field(default_factory=dict)
    taken_at: datetime = field(default_factory=clock.now)  # aware, UTC
    monotonic: float = field(default_factory=time.monotonic)  # seconds; only differences mean something


def load(settings):
    """The camera of settings.camera.kind, not yet opened. Raises CameraError where its packages are missing."""
    module = importlib.import_module(f".{MODULES[settings.camera.kind]}", __name__)
    return module.Camera(settings)


def maker_note(gain_r, gain_b, **more):
    """The MakerNote text: colour gains, and what else has no tag of its own."""
    figures = {"gain_r": f"{gain_r:.2f}", "gain_b": f"{gain_b:.2f}", **more}
    return " ".join(f"{name}={value}" for name, value in figures.items())
