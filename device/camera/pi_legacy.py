"""A Raspberry Pi camera through picamera 1.13, the legacy stack.

The stack needs 32-bit Bullseye or older with the legacy camera switched on. Nobody develops it any more: use it only
on installations where it already works, and picamera2 for everything new.
"""

from __future__ import annotations

import io
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from device import clock
from device.camera import CameraError, Frame, maker_note

if TYPE_CHECKING:
    from device.config import Settings

INSTALL = (
    "sudo apt install -y python3-picamera, switch the legacy camera on in raspi-config, and make the virtual "
    "environment with --system-site-packages. On Bookworm and later, and on any 64-bit system, there is no legacy "
    "stack: use picamera2"
)


class Camera:
    """Configured once; exposure and white balance are held between measurements."""

    def __init__(self, settings: Settings):
        self.settings = settings.camera
        self.camera: Any = None
        self.measured = 0.0  # when exposure was last measured, by the monotonic clock

    def open(self) -> None:
        """Finds the camera, configures it and measures exposure. Raises CameraError."""
        try:
            import picamera
        except (ImportError, OSError) as error:  # OSError: only 32-bit Pi OS has libbcm_host.so
            raise CameraError(f'camera.kind = "picamera", but it can\'t be imported ({error}). {INSTALL}') from error
        self.failures = (picamera.exc.PiCameraError, picamera.exc.PiCameraRuntimeError)
        try:
            self.camera = picamera.PiCamera(camera_num=self.settings.index, resolution=tuple(self.settings.size))
        except self.failures as error:
            raise CameraError(
                f"the camera does not start ({error}). Check the ribbon cable and `vcgencmd get_camera`; "
                "only one program can hold a camera"
            ) from error
        self._measure()

    def _measure(self) -> None:
        """Lets automatic exposure and white balance settle, then holds their values."""
        camera = self.camera
        camera.shutter_speed, camera.exposure_mode, camera.awb_mode = 0, "auto", "auto"
        time.sleep(self.settings.warm_up_s)
        gains = camera.awb_gains
        camera.shutter_speed, camera.exposure_mode = camera.exposure_speed, "off"
        camera.awb_mode, camera.awb_gains = "off", gains
        self.measured = time.monotonic()

    def capture(self) -> Frame:
        """One photograph. Raises CameraError if the driver gives none."""
        if 0 < self.settings.hold_exposure_s < time.monotonic() - self.measured:
            self._measure()
        out = io.BytesIO()  # never a file: only the spool's own write handles a full disk
        monotonic, at = time.monotonic(), clock.now()
        try:
            # The still port: slower than the video port, sharper, and without its dropped frames.
            self.camera.capture(out, "jpeg", quality=self.settings.quality)
        except self.failures as error:
            raise CameraError(f"the camera gave no frame ({error})") from error
        half = (time.monotonic() - monotonic) / 2  # the sensor was read somewhere in between
        return Frame(out.getvalue(), self._metadata(), at + timedelta(seconds=half), monotonic + half)

    def _metadata(self) -> dict[str, Any]:
        camera = self.camera
        gains = [float(gain) for gain in camera.awb_gains]
        return {
            "make": "RaspberryPi",
            "model": f"RP_{camera.revision}",
            "exposure_s": camera.exposure_speed / 1e6,
            "iso": round(100 * float(camera.analog_gain) * float(camera.digital_gain)),
            "maker_note": maker_note(*gains),
            "exposure_held": True,
        }

    def close(self) -> None:
        """Releases the camera."""
        if self.camera is not None:
            self.camera.close()
