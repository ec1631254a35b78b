"""Which scored frames come home with their image: those from which the next training learns most, within so many bytes a day.

near       the score lies within feedback.margin of the threshold (more than two classes: the two likeliest lie that close)
quality    too dark, too light or too flat to tell much
drift      the brightness left its running mean: the camera was moved, a lamp broke, snow fell
sample     a small share of all, so that what the model is sure about, and wrong, is seen as well
"""

from dataclasses import dataclass

from PIL import Image

from device import clock
from device.spool.spool import MEGABYTE

MEMORY = 1 / 30  # weight of a new frame in the running mean of the brightness: it forgets over some 30 frames


def light(pixels, side):
    """{"brightness", "contrast"} in 0..1: mean and standard deviation of the luma (ITU-R 601) of raw RGB pixels, bytes of side * side * 3."""
    counts = Image.frombytes("RGB", (side, side), pixels).convert("L").histogram()  # a tenth of what numpy takes for it
    mean = sum(value * count for value, count in enumerate(counts)) / side**2
    variance = sum((value - mean) ** 2 * count for value, count in enumerate(counts)) / side**2
    return {"brightness": round(mean / 255, 4), "contrast": round(variance**0.5 / 255, 4)}


@dataclass
class Choice:
    """Chooses, and keeps the day's account. settings: [feedback]; day, spent: the UTC date and the bytes chosen on it so far."""

    settings: object
    day: str = ""
    spent: int = 0
    mean: float = None  # of the brightness

    def account(self):
        """What must outlive a restart, for a record."""
        return {"day": self.day, "spent": self.spent}

    def why(self, scores, threshold, figures, digest):
        """The reasons to send this frame's image, a list of the words above. figures: of light(); digest: the frame's SHA-256 in hex."""
        settings, reasons = self.settings, []
        ordered = sorted(scores)
        distance = abs(scores[1] - threshold) if len(scores) == 2 else ordered[-1] - ordered[-2]
        if distance <= settings.margin:
            reasons.append("near")
        if not settings.dark <= figures["brightness"] <= settings.bright or figures["contrast"] < settings.flat:
            reasons.append("quality")
        if self.mean is not None and abs(figures["brightness"] - self.mean) > settings.drift:
            reasons.append("drift")
        self.mean = (
            figures["brightness"] if self.mean is None else self.mean + MEMORY * (figures["brightness"] - self.mean)
        )
        if int(digest[:8], 16) < settings.sample * 2**32:
            reasons.append("sample")
        return reasons

    def take(self, size):
        """Whether an image of `size` bytes is within today's budget; it is booked when it is. A day is a UTC date by this device's clock."""
        today = f"{clock.now():%Y-%m-%d}"
        if today != self.day:
            self.day, self.spent = today, 0
        if self.spent + size > self.settings.max_mb_a_day * MEGABYTE:
            return False
        self.spent += size
        return True
