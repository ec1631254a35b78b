"""A Raspberry Pi camera through picamera2, the current stack (Bookworm, Trixie; any 64-bit Pi OS).

picamera2 comes from apt, built against the system's libcamera; no wheel of it works in a plain virtual environment.
"""

from __future__ import annotations

import concurrent.futures
import io
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from device import clock
from device.camera import CameraError, Frame, maker_note

if TYPE_CHECKING:
    from device.config import Settings

INSTALL = (
    "sudo apt install -y --no-install-recommends python3-picamera2, and make the virtual environment with "
    "--system-site-packages (device/install.sh does both)"
)


class Camera:
    """Configured once, with one buffer: reopening or reconfiguring exhausts the camera's memory after some days."""

    def __init__(self, settings: Settings):
        self.settings = settings.camera
        self.camera: Any = None
        self.measured = 0.0  # when exposure was last measured, by the monotonic clock

    def open(self) -> None:
        """Finds the camera, configures it and measures exposure. Raises CameraError."""
        try:
            from picamera2 import Picamera2
        except (ImportError, OSError) as error:
            raise CameraError(f'camera.kind = "picamera2", but it can\'t be imported ({error}). {INSTALL}') from error
        try:
            self.camera = Picamera2(self.settings.index)
            still = self.camera.create_still_configuration(main={"size": tuple(self.settings.size)}, buffer_count=1)
            self.camera.configure(still)
            self.camera.options["quality"] = self.settings.quality
            self.camera.start()
        except (RuntimeError, IndexError) as error:
            raise CameraError(
                f"the camera does not start ({error} {error.__cause__ or ''}). Check the ribbon cable and "
                "`rpicam-hello --list-cameras`; only one program can hold a camera"
            ) from error
        self._measure()

    def _measure(self) -> None:
        """Lets automatic exposure and white balance settle, then holds their values."""
        self._control(AeEnable=True, AwbEnable=True)
        time.sleep(self.settings.warm_up_s)
        with _in_time(self.settings.timeout_s):
            measured = self.camera.capture_metadata(wait=self.settings.timeout_s)
        held = {name: measured[name] for name in ("ExposureTime", "AnalogueGain", "ColourGains") if name in measured}
        self._control(AeEnable=False, AwbEnable=False, **held)
        self.measured = time.monotonic()

    def _control(self, **controls: Any) -> None:
        # A monochrome sensor has no white balance, and picamera2 raises for a control that the camera lacks.
        self.camera.set_controls(
            {name: value for name, value in controls.items() if name in self.camera.camera_controls}
        )

    def capture(self) -> Frame:
        """One photograph. Raises CameraError after camera.timeout_s."""
        if 0 < self.settings.hold_exposure_s < time.monotonic() - self.measured:
            self._measure()
        with _in_time(self.settings.timeout_s):
            # flush: a frame whose exposure begins now. A waiting buffer would hold an old scene.
            request = self.camera.capture_request(wait=self.settings.timeout_s, flush=True)
        try:
            monotonic, at, uptime = time.monotonic(), clock.now(), clock.uptime()
            facts = request.get_metadata()
            out = io.BytesIO()  # never a file: save() ignores a full disk and leaves half a picture
            request.save("main", out, format="jpeg")
        finally:
            request.release()
        # The sensor stamps the start of the first line, by the clock of uptime().
        age = uptime - facts.get("SensorTimestamp", 0) / 1e9
        if 0 <= age < 60:
            at, monotonic = at - timedelta(seconds=age), monotonic - age
        return Frame(out.getvalue(), self._metadata(facts), at, monotonic)

    def _metadata(self, facts: dict[str, Any]) -> dict[str, Any]:
        gain_r, gain_b = facts.get("ColourGains", (1.0, 1.0))
        more = {"lux": f"{facts['Lux']:.0f}"} if "Lux" in facts else {}
        return {
            "make": "RaspberryPi",
            "model": f"RP_{self.camera.camera_properties.get('Model', 'unknown')}",
            "exposure_s": facts["ExposureTime"] / 1e6 if "ExposureTime" in facts else None,
            "iso": round(100 * facts.get("AnalogueGain", 1.0) * facts.get("DigitalGain", 1.0)),
            "maker_note": maker_note(gain_r, gain_b, **more),
            "exposure_held": True,
        }

    def close(self) -> None:
        """Releases the camera."""
        if self.camera is not None:
            self.camera.close()


@contextmanager
def _in_time(seconds: float) -> Iterator[None]:
    """Turns picamera2's time-out into a CameraError. Its class became the built-in TimeoutError in Python 3.11."""
    try:
        yield
    except concurrent.futures.TimeoutError as error:
        raise CameraError(
            f"no frame within camera.timeout_s = {seconds:g} s: a loose ribbon cable or a hung driver"
        ) from error
