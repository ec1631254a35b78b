"""Which frames to keep: by the hour of the day, and by change of the scene."""

from __future__ import annotations

import io
import time
from types import SimpleNamespace

from PIL import Image, ImageChops, ImageStat

from device.camera import Frame

CELLS = (64, 48)  # scenes are compared at this size: leaves and noise average out, a parcel does not


def is_active(hours: str, local: time.struct_time) -> bool:
    """True if `local` is within "HH:MM-HH:MM", end excluded, also over midnight. "" means always."""
    if not hours:
        return True
    begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in hours.split("-"))
    minute = local.tm_hour * 60 + local.tm_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def thumbnail(jpeg: bytes) -> Image.Image:
    """The picture as CELLS of grey (mode L). Raises OSError for a broken JPEG.

    The mean is subtracted, so a cloud before the sun is no change.
    """
    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", (CELLS[0] * 4, CELLS[1] * 4))  # the JPEG decoder scales by 2, 4 or 8 at nearly no cost
    small = image.convert("L").resize(CELLS, Image.Resampling.BOX)
    return ImageChops.add(small, Image.new("L", CELLS, 128), 1, -round(ImageStat.Stat(small).mean[0]))


def changed_area(before: Image.Image, after: Image.Image, level: float) -> float:
    """Share of the picture, 0 to 1, whose brightness changed by more than `level` (0 to 1) between two thumbnails."""
    histogram = ImageChops.difference(before, after).histogram()
    return sum(histogram[int(level * 255) + 1 :]) / (CELLS[0] * CELLS[1])


class SceneChange:
    """Keeps a frame if it differs from the last kept frame, and one frame every keep_every_s seconds anyway.

    Comparing with the last kept frame rather than the previous frame detects slow changes too.
    """

    def __init__(self, settings: SimpleNamespace):
        """settings: the [capture] section."""
        self.settings = settings
        self.kept: Image.Image | None = None
        self.kept_at = 0.0

    def wants(self, frame: Frame) -> bool:
        """True if this frame should be kept."""
        current = thumbnail(frame.jpeg)
        due = 0 < self.settings.keep_every_s <= frame.monotonic - self.kept_at
        if (
            self.kept is None
            or due
            or changed_area(self.kept, current, self.settings.change_level) >= self.settings.change_area
        ):
            self.kept, self.kept_at = current, frame.monotonic
            return True
        return False
