"""Chooses the scored frames whose images are sent, because the next training learns most from them.

A day's chosen images stay within a number of bytes. The reasons:

near       the score lies within feedback.margin of the threshold (more than two classes: of the two highest scores)
quality    the image is too dark, too bright or too flat
drift      the brightness left its running mean: the camera was moved, a lamp broke, snow fell
sample     a small random share of all frames, so that confident mistakes are found too
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from PIL import Image

from device import clock
from device.spool.spool import MEGABYTE

NEW_WEIGHT = 1 / 30  # weight of a new frame in the running mean of the brightness: its memory is some 30 frames


def light(pixels: bytes, image_size: int) -> dict[str, float]:
    """{"brightness", "contrast"}, both 0 to 1: mean and standard deviation of the luma (ITU-R 601).

    pixels: raw RGB, uint8, image_size * image_size * 3 bytes.
    """
    image = Image.frombytes("RGB", (image_size, image_size), pixels)
    counts = image.convert("L").histogram()  # takes a tenth of numpy's time
    mean = sum(value * count for value, count in enumerate(counts)) / image_size**2
    variance = sum((value - mean) ** 2 * count for value, count in enumerate(counts)) / image_size**2
    return {"brightness": round(mean / 255, 4), "contrast": round(variance**0.5 / 255, 4)}


@dataclass
class Choice:
    """Chooses images and books their bytes. settings: the [feedback] section.

    day, spent: a UTC date, and the bytes chosen on it so far.
    """

    settings: SimpleNamespace
    day: str = ""
    spent: int = 0
    mean: float | None = None  # running mean of the brightness

    def account(self) -> dict[str, Any]:
        """{"day", "spent"}, which must survive a restart."""
        return {"day": self.day, "spent": self.spent}

    def reasons(self, scores: Sequence[float], threshold: float, figures: dict[str, float], digest: str) -> list[str]:
        """The reasons to send this frame's image, out of near, quality, drift and sample; [] if there is none.

        figures: light() of the frame. digest: the frame's SHA-256 in hex, whose first 32 bits draw the sample.
        """
        settings, reasons = self.settings, []
        brightness = figures["brightness"]
        ordered = sorted(scores)
        distance = abs(scores[1] - threshold) if len(scores) == 2 else ordered[-1] - ordered[-2]
        if distance <= settings.margin:
            reasons.append("near")
        if not settings.dark <= brightness <= settings.bright or figures["contrast"] < settings.flat:
            reasons.append("quality")
        if self.mean is not None and abs(brightness - self.mean) > settings.drift:
            reasons.append("drift")
        self.mean = brightness if self.mean is None else self.mean + NEW_WEIGHT * (brightness - self.mean)
        if int(digest[:8], 16) < settings.sample * 2**32:
            reasons.append("sample")
        return reasons

    def take(self, size: int) -> bool:
        """True if an image of `size` bytes fits today's budget; then its bytes are booked.

        A day is a UTC date by this device's clock.
        """
        today = f"{clock.now():%Y-%m-%d}"
        if today != self.day:
            self.day, self.spent = today, 0
        if self.spent + size > self.settings.max_mb_a_day * MEGABYTE:
            return False
        self.spent += size
        return True
