"""Which frames are worth keeping: the hours of the day, and whether the scene has changed."""

import io

from PIL import Image, ImageChops, ImageStat

CELLS = (64, 48)  # the scene is compared at this size: leaves and noise average out, a parcel does not


def is_active(hours, local):
    """Whether `local`, a struct_time, lies in "HH:MM-HH:MM" (the end is not in it); over midnight too. "" is always."""
    if not hours:
        return True
    begin, end = (int(part[:2]) * 60 + int(part[3:]) for part in hours.split("-"))
    minute = local.tm_hour * 60 + local.tm_min
    return begin <= minute < end if begin <= end else minute >= begin or minute < end


def thumbnail(jpeg):
    """The picture as CELLS of grey whose mean is taken out, so that a cloud over the sun is no change. Raises OSError for a broken JPEG."""
    image = Image.open(io.BytesIO(jpeg))
    image.draft("L", (CELLS[0] * 4, CELLS[1] * 4))  # the JPEG decoder scales by 2, 4 or 8 nearly for nothing
    small = image.convert("L").resize(CELLS, Image.Resampling.BOX)
    return ImageChops.add(small, Image.new("L", CELLS, 128), 1, -round(ImageStat.Stat(small).mean[0]))


def changed_area(before, after, level):
    """Share of the picture, 0 to 1, whose brightness moved by more than `level` (0 to 1) between two thumbnails."""
    histogram = ImageChops.difference(before, after).histogram()
    return sum(histogram[int(level * 255) + 1 :]) / (CELLS[0] * CELLS[1])


class SceneChange:
    """Keeps a frame when it differs from the last one kept, and one every keep_every_s seconds anyway.

    The last kept, not the last seen: what comes slowly comes too.
    """

    def __init__(self, settings):
        self.settings = settings
        self.kept = None
        self.kept_at = 0.0

    def wants(self, frame):
        """Whether to keep this Frame."""
        seen = thumbnail(frame.jpeg)
        due = 0 < self.settings.keep_every_s <= frame.monotonic - self.kept_at
        if (
            self.kept is None
            or due
            or changed_area(self.kept, seen, self.settings.change_level) >= self.settings.change_area
        ):
            self.kept, self.kept_at = seen, frame.monotonic
            return True
        return False
