"""The simulated porch as a camera: the same one notebook 01 uses. For every machine that has no camera."""

import io
import random

from device import clock
from device.camera import CameraError, Frame

VISIT = 6  # frames that show the same visit to the porch


class Camera:
    """Draws scene after scene from camera.seed; about 20 ms for 600 x 600 pixels on a PC."""

    def __init__(self, settings):
        self.settings = settings
        self.frames = 0

    def open(self):
        try:
            from device.simulation import porch
        except ImportError as error:
            raise CameraError(
                f'camera.kind = "simulated" needs Pillow: pip install -r device/requirements.txt ({error})'
            ) from error
        self.simulated = porch

    def capture(self):
        settings, at = self.settings.camera, clock.now()
        rng = random.Random(f"{settings.seed}-{self.frames // VISIT}")
        first = rng.random() < 0.5  # a visit shows the porch with and without the package, in random order
        package = first == (self.frames % VISIT < VISIT // 2)
        scene = self.simulated.Scene(
            self.settings.device.id,
            at,
            package,
            rng.getrandbits(48),
            frame=self.frames % VISIT,
            size=tuple(settings.size),
        )
        out = io.BytesIO()
        self.simulated.picture(scene).save(out, "JPEG", quality=settings.quality)
        self.frames += 1
        metadata = {"make": "lakevision", "model": "simulated porch"}
        if settings.labelled:
            metadata["label"] = self.simulated.LABELS[package]
        return Frame(out.getvalue(), metadata, at)

    def close(self):
        """Nothing to give back."""
