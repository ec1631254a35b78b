"""Statistics of one picture's pixels, all from one decode: moments and histograms, sharpness, and a perceptual hash. No Spark in here."""

import numpy as np
from PIL import Image

LONG_SIDE = 300  # sharpness is measured at about this size: it bounds the cost of a 12 MP photograph, and averages sensor noise away
TAPS = 9  # pixels of the box that the picture is blurred with once more, as in the paper


def of(image):
    """(statistics of an RGB image as in tables.STATISTICS, its perceptual hash): {"bands", "luma", "brightness", "contrast", "entropy", "sharpness"}, int.

    bands and luma (ITU-R 601) hold mean, median, stddev, min and max in 0..255, entropy (Shannon, bits, 0..8) and the histogram of
    256 counts; brightness and contrast are luma's mean and deviation in 0..1; sharpness is in 0..1, None where the picture is too small or flat.
    """
    luma = image.convert("L")
    bands = [moments(name, counts) for name, counts in zip("RGB", np.reshape(image.histogram(), (3, 256)))]
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


def moments(band, counts):
    """Mean, median, deviation, extrema and entropy of 0..255 values given how often each occurs. counts: int array (256,)."""
    present = np.flatnonzero(counts)
    seen, total = counts[present], counts.sum()
    mean = float(seen @ present / total)
    share = seen / total
    below = counts.cumsum()
    return {
        "band": band,
        "mean": mean,
        "median": (_value_at(below, (total - 1) // 2) + _value_at(below, total // 2)) / 2,
        "stddev": float(seen @ (present - mean) ** 2 / total) ** 0.5,
        "min": int(present[0]),
        "max": int(present[-1]),
        "entropy": max(0.0, float(-(share @ np.log2(share)))),
        "histogram": counts,
    }


def _value_at(below, rank):
    return int(np.searchsorted(below, rank, side="right"))


def percentile(counts, share):
    """The value (0..255) below which a share (0..1) of the pixels lies. counts: 256 numbers."""
    below = np.cumsum(counts)
    return int(np.searchsorted(below, share * below[-1]))


def sharpness(luma):
    """How much detail a further blur would take away, 0 (already blurred) to 1, the lower of the two directions; None where that can't be said.

    1 - blur effect of Crete et al., The blur effect: perception and estimation with a new no-reference perceptual blur metric, 2007.
    luma: PIL image of mode L.
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


_FREQUENCIES = np.sqrt(2 / 32) * np.cos(np.pi * np.arange(1, 9)[:, None] * (np.arange(32) + 0.5) / 32)
_FREQUENCIES = np.vstack([np.full((1, 32), np.sqrt(1 / 32)), _FREQUENCIES])[:8].astype(
    np.float32
)  # DCT-II, the 8 lowest of 32


def perceptual_hash(luma):
    """63 bits as a non-negative int: which of the 63 lowest frequencies of the picture lie above their median; the mean brightness is left out.

    pHash of Zauner, Implementation and benchmarking of perceptual image hash functions, 2010, ch. 3.2.1. Re-encoding or resizing a photograph
    changes 2 bits at most, a package that appears in the scene 6 and more. luma: PIL image of mode L.
    """
    small = np.asarray(luma.resize((32, 32), Image.Resampling.BOX), np.float32)
    low = (_FREQUENCIES @ small @ _FREQUENCIES.T).ravel()[1:]
    return int.from_bytes(np.packbits(np.concatenate([[False], low > np.median(low)])).tobytes(), "big")
