"""Statistics of one picture's pixels: moments, histograms, sharpness, perceptual hash. Without Spark.

All statistics come from one decode of the photograph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

LONG_SIDE = 300  # pixels; measuring sharpness at about this size bounds the cost of 12 MP and averages sensor noise
TAPS = 9  # width in pixels of the box blur that sharpness() applies, as in the paper


def of(image: Image.Image) -> tuple[dict[str, Any], int]:
    """(statistics of an RGB image as in tables.STATISTICS, perceptual hash of the image).

    The statistics have the keys bands, luma, brightness, contrast, entropy and sharpness. bands and luma (ITU-R 601)
    hold mean, median, stddev, min and max in 0..255, entropy (Shannon, bits, 0..8) and the histogram of 256 counts.
    brightness and contrast are the mean and standard deviation of luma in 0..1. sharpness is in 0..1, or None if the
    picture is too small or flat.
    """
    luma = image.convert("L")
    histograms = np.reshape(image.histogram(), (3, 256))
    bands = [moments(name, counts) for name, counts in zip("RGB", histograms, strict=True)]
    of_luma = moments("L", np.asarray(luma.histogram()))
    factor = max(luma.size) // LONG_SIDE
    small = luma.reduce(factor) if factor > 1 else luma
    return {
        "bands": bands,
        "luma": of_luma,
        "brightness": of_luma["mean"] / 255,
        "contrast": of_luma["stddev"] / 255,
        "entropy": of_luma["entropy"],
        "sharpness": sharpness(small),
    }, perceptual_hash(small)


def moments(band: str, counts: np.ndarray) -> dict[str, Any]:
    """Mean, median, standard deviation, extrema and entropy of the pixels of a band.

    counts: histogram, int array (256,): number of pixels with the values 0, 1, ..., 255.
    """
    present = np.flatnonzero(counts)
    frequency, total = counts[present], counts.sum()
    mean = float(frequency @ present / total)
    share = frequency / total
    below = counts.cumsum()
    return {
        "band": band,
        "mean": mean,
        "median": (_value_at(below, (total - 1) // 2) + _value_at(below, total // 2)) / 2,
        "stddev": float(frequency @ (present - mean) ** 2 / total) ** 0.5,
        "min": int(present[0]),
        "max": int(present[-1]),
        "entropy": max(0.0, float(-(share @ np.log2(share)))),
        "histogram": counts,
    }


def _value_at(below: np.ndarray, rank: int) -> int:
    return int(np.searchsorted(below, rank, side="right"))


def percentile(counts: np.ndarray, share: float) -> int:
    """The value (0..255) below which a share (0..1) of the pixels lies. counts: histogram, int array (256,)."""
    below = np.cumsum(counts)
    return int(np.searchsorted(below, share * below[-1]))


def sharpness(luma: Image.Image) -> float | None:
    """Share of the detail that a further blur removes: 0 (already blurred) to 1, the lower of the two directions.

    1 - blur effect of Crete et al., The blur effect: perception and estimation with a new no-reference perceptual blur
    metric, 2007. luma: PIL image of mode L. None if the picture is at most TAPS pixels high or wide, or flat.
    """
    pixels = np.asarray(luma, np.float32)
    if min(pixels.shape) <= TAPS:
        return None
    kept, edge = [], TAPS // 2
    for rows in (pixels, pixels.T):
        steps = rows[edge + 1 : -edge] - rows[edge : -edge - 1]
        np.abs(steps, out=steps)
        total = float(steps.sum())
        if not total:
            return None
        blurred = rows[TAPS:] - rows[:-TAPS]  # TAPS times the step between two neighbouring means of TAPS pixels
        np.abs(blurred, out=blurred)
        blurred *= 1 / TAPS
        np.subtract(steps, blurred, out=steps)
        kept.append(float(np.maximum(steps, 0, out=steps).sum()) / total)
    return min(kept)


# DCT-II: the 8 lowest of 32 frequencies, float32 array (8, 32).
_FREQUENCIES = np.sqrt(2 / 32) * np.cos(np.pi * np.arange(1, 9)[:, None] * (np.arange(32) + 0.5) / 32)
_FREQUENCIES = np.vstack([np.full((1, 32), np.sqrt(1 / 32)), _FREQUENCIES])[:8].astype(np.float32)


def perceptual_hash(luma: Image.Image) -> int:
    """63 bits as a non-negative int: each bit is set if a low frequency of the picture is above the median.

    The mean brightness is not part of the hash. pHash of Zauner, Implementation and benchmarking of perceptual image
    hash functions, 2010, ch. 3.2.1. Re-encoding or resizing a photograph changes 2 bits at most; a package that appears
    in the scene changes 6 or more. luma: PIL image of mode L.
    """
    small = np.asarray(luma.resize((32, 32), Image.Resampling.BOX), np.float32)
    low = (_FREQUENCIES @ small @ _FREQUENCIES.T).ravel()[1:]
    return int.from_bytes(np.packbits(np.concatenate([[False], low > np.median(low)])).tobytes(), "big")
