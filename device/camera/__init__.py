"""The cameras, behind one small interface. Each is imported only if the settings select it.

    camera = load(settings)     # the class for camera.kind; no hardware is touched yet
    camera.open()               # finds and configures the hardware, warms up, holds exposure and white balance
    frame = camera.capture()    # a Frame
    camera.close()

Every failure is a CameraError with a remedy. A call may hang for ever and ignore every signal, because drivers do;
the caller limits the time with hang_guard.guard(). May import the modules at device's root that hold no
command. Start reading here, then pi.py.
"""

from __future__ import annotations

import importlib
import time
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from device import clock

if TYPE_CHECKING:
    from device.config import Settings

MODULES = {"picamera2": "pi", "picamera": "pi_legacy", "folder": "folder", "simulated": "simulated"}


class CameraError(Exception):
    """The camera is missing or failed; the message holds the remedy."""


class NoMoreFrames(Exception):
    """A replay that does not loop has reached its end."""


@dataclass(frozen=True)
class Frame:
    """One photograph.

    metadata: keyword arguments of exif.build (make, model, exposure_s, iso, ...), and `label` if the source has one.
    """

    jpeg: bytes
    metadata: dict[str, Any] = field(default_factory=dict)
    taken_at: datetime = field(default_factory=clock.now)  # aware, UTC
    monotonic: float = field(default_factory=time.monotonic)  # seconds; only differences are meaningful


class Camera(Protocol):
    """The interface of every camera. open() and capture() raise CameraError."""

    def open(self) -> None: ...

    def capture(self) -> Frame: ...

    def close(self) -> None: ...


def load(settings: Settings) -> Camera:
    """The camera of settings.camera.kind, not yet opened. Raises CameraError if its packages are missing."""
    module = importlib.import_module(f".{MODULES[settings.camera.kind]}", __name__)
    return module.Camera(settings)


def maker_note(gain_r: float, gain_b: float, **more: str) -> str:
    """The MakerNote text: colour gains, and everything else that has no tag of its own."""
    values = {"gain_r": f"{gain_r:.2f}", "gain_b": f"{gain_b:.2f}", **more}
    return " ".join(f"{name}={value}" for name, value in values.items())
