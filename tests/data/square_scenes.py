"""Drawn scenes with a bright square as the object, and networks that look at one window only."""

import numpy as np
import pandas as pd

from lakevision.dataset import object_region
from lakevision.dataset.feed import Arrays

LOWER = object_region.Region((0.0, 0.5, 1.0, 1.0), "config")


SIDE = 32


def scenes(count=80, seed=0, sticker=False):
    """(Arrays, rows): a bright square in the lower half means class 1; light differs by a factor of two; sticker: a
    yellow one in the corner, too.
    """
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, count).astype(np.int32)
    light = rng.uniform(0.6, 1.2, count)
    pixels = 80 + rng.normal(0, 4, (count, SIDE, SIDE, 3))
    for number in np.flatnonzero(targets):
        top, left = rng.integers(18, 24), rng.integers(2, 24)
        pixels[number, top : top + 6, left : left + 6] = 190
        if sticker:
            pixels[number, 0:6, 0:6] = (220, 220, 10)
    rows = pd.DataFrame(
        {
            "device": rng.choice(["a", "b"], count),
            "captured_from": "exif",
            "episode": [f"e{number // 2}" for number in range(count)],
            "captured_at": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 86400, count), unit="s"),
        }
    )
    return Arrays(
        np.clip(pixels * light[:, None, None, None], 0, 255).astype(np.uint8),
        targets,
        [str(number) for number in range(count)],
    ), rows


def sees(rows, columns):
    """A network that says 1 where something in a window is much brighter than the picture's median."""

    def network(batch):
        batch = np.asarray(batch)
        typical = np.median(batch, (1, 2, 3))
        bright = np.quantile(batch[:, rows, columns].mean(3).reshape(len(batch), -1), 0.97, axis=1) > 1.5 * typical
        return np.stack([1 - bright * 0.98 - 0.01, bright * 0.98 + 0.01], 1).astype(np.float32)

    return network


OBJECT, CORNER = sees(slice(16, 32), slice(0, 32)), sees(slice(0, 6), slice(0, 6))
