"""A Raspberry Pi camera through picamera 1.13, the legacy stack: 32-bit Bullseye or older with the legacy camera switched on.

No longer developed by anyone. It works where it worked; for anything new take picamera2.
"""

import io
import time
from datetime import timedelta

from device import clock
from device.camera import CameraError, Frame, maker_note

INSTALL = (
    "sudo apt install -y python3-picamera, switch the legacy camera on in raspi-config, and make the virtual environment "
    "with --system-site-packages. On Bookworm and later, and on any 64-bit system, there is no legacy stack: use picamera2"
)


class Camera:
    """Configured once; exposure and white balance are held between measurements."""

    def __init__(self, settings):
        self.settings = settings.camera
        self.camera = None

    def open(self):
        try:
            import picamera
        except (ImportError, OSError) as error:  # OSError: libbcm_host.so is only on 32-bit Pi OS
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

    def _measure(self):
        """Lets automatic exposure and white balance settle, then holds what they found."""
        camera = self.camera
        camera.shutter_speed, camera.exposure_mode, camera.awb_mode = 0, "auto", "auto"
        time.sleep(self.settings.warm_up_s)
        gains = camera.awb_gains
        camera.shutter_speed, camera.exposure_mode = camera.exposure_speed, "off"
        camera.awb_mode, camera.awb_gains = "off", gains
        self.measured = time.monotonic()

    def capture(self):
        if 0 < self.settings.hold_exposure_s < time.monotonic() - self.measured:
            self._measure()
        out = io.BytesIO()  # never a file: the spool's own write notices a full disk
        monotonic, at = time.monotonic(), clock.now()
        try:
            # The still port: slower than the video port, sharper, and without its dropped frames.
            self.camera.capture(out, "jpeg", quality=self.settings.quality)
        except self.failures as error:
            raise CameraError(f"the camera gave no frame ({error})") from error
        half = (time.monotonic() - monotonic) / 2  # somewhere in between the sensor was read
        return Frame(out.getvalue(), self._metadata(), at + timedelta(seconds=half), monotonic + half)

    def _metadata(self):
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

    def close(self):
        if self.camera is not None:
            self.camera.close()
