"""The simulated porch as a camera, for machines without a camera. Notebook 01 draws the same porch."""

from __future__ import annotations

import io
import random
from typing import TYPE_CHECKING

from device import clock
from device.camera import CameraError, Frame

if TYPE_CHECKING:
    from device.config import Settings

VISIT = 6  # frames that show the same visit to the porch


class Camera:
    """Draws scene after scene from camera.seed; about 20 ms for 600 x 600 pixels on a PC."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.frames = 0

    def open(self) -> None:
        """Imports the drawing code. Raises CameraError without Pillow."""
        try:
            from device.simulation import porch
        except ImportError as error:
            raise CameraError(
                f'camera.kind = "simulated" needs Pillow: pip install -r device/requirements.txt ({error})'
            ) from error
        self.porch = porch

    def capture(self) -> Frame:
        """The next scene as a Frame. A visit shows the porch with and without the package, in random order."""
        settings, at = self.settings.camera, clock.now()
        rng = random.Random(f"{settings.seed}-{self.frames // VISIT}")
        package_first = rng.random() < 0.5
        package = package_first == (self.frames % VISIT < VISIT // 2)
        scene = self.porch.Scene(
            self.settings.device.id,
            at,
            package,
            rng.getrandbits(48),
            frame=self.frames % VISIT,
            size=tuple(settings.size),
        )
        out = io.BytesIO()
        self.porch.picture(scene).save(out, "JPEG", quality=settings.quality)
        self.frames += 1
        metadata = {"make": "lakevision", "model": "simulated porch"}
        if settings.labelled:
            metadata["label"] = self.porch.LABELS[package]
        return Frame(out.getvalue(), metadata, at)

    def close(self) -> None:
        """There is nothing to release."""
