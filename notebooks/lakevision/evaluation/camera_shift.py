"""Where a camera pointed: the shift of each picture against the others of its camera.

If a camera was moved between two batches of labels, its position reveals the label, and no metadata records the move.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lakevision.dataset.object_region import Region, pixels_of

ROUNDS = 2  # align with one picture first, then with the mean of the aligned pictures
SAMPLE = 60  # pictures of a camera from which the reference is made
REACH = 0.15  # largest shift tried, share of the picture's width; a larger shift shows another scene
# Correlation of aligned edges from which a camera's pictures count as one view. Photographs of different places
# have less than 0.2.
FIXED = 0.4


def shifts(pixels: np.ndarray, cameras: Sequence[str], region: Region | None = None) -> np.ndarray:
    """Shift of each picture to the right and down against its camera's mean, as shares of the width: float32 (n, 2).

    The shift is nan for cameras without a fixed view. pixels: uint8 (n, size, size, 3); cameras: n names;
    region: ignored part of the picture, because the object moves by itself.
    The shift is the peak of the cross-correlation of edges, found by FFT.
    A parabola refines the peak to a fraction of a pixel.
    """
    edges = _edges(pixels, region)
    result = np.zeros((len(pixels), 2), np.float32)
    names = np.asarray(cameras, dtype=object)
    for camera in sorted(set(names)):
        rows = np.flatnonzero(names == camera)
        sample = rows[:: max(1, len(rows) // SAMPLE)]
        reference = edges[sample[np.argsort(edges[sample].sum((1, 2)))[len(sample) // 2]]]
        for _ in range(ROUNDS):
            moved, _ = _peaks(edges[sample], reference)
            aligned = [
                np.roll(edge, tuple(-np.round(shift).astype(int)), (0, 1))
                for edge, shift in zip(edges[sample], moved, strict=True)
            ]
            reference = np.mean(aligned, 0)
        moved, fit = _peaks(edges[rows], reference)
        fixed = np.median(fit) >= FIXED
        result[rows] = (moved - moved.mean(0))[:, ::-1] / pixels.shape[1] if fixed else np.nan
    return result


def _edges(pixels: np.ndarray, region: Region | None) -> np.ndarray:
    """Gradient magnitude of log luma, float32 (n, size, size), mean 0. The logarithm makes it independent of light."""
    luma = np.log(pixels.astype(np.float32).mean(3) + 8)
    magnitude = np.hypot(np.gradient(luma, axis=1), np.gradient(luma, axis=2))
    magnitude = np.minimum(magnitude, 0.5)
    if region is not None:
        rows, columns = pixels_of(region, pixels.shape[1])
        magnitude[:, max(0, rows.start - 2) : rows.stop + 2, max(0, columns.start - 2) : columns.stop + 2] = 0
    return magnitude - magnitude.mean((1, 2), keepdims=True)


def _peaks(edges: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Best shift of each picture against the reference, and the correlation there.

    Returns (float (n, 2), rows and columns in pixels; float (n,)).
    """
    size = edges.shape[1]
    reach = max(2, int(REACH * size))
    near = slice(size // 2 - reach, size // 2 + reach + 1)
    peaks, heights = np.empty((len(edges), 2)), np.empty(len(edges))
    spectrum = np.conj(np.fft.rfft2(reference))
    for start in range(0, len(edges), 256):  # 256 pictures at a time bound the memory
        fits = np.fft.irfft2(np.fft.rfft2(edges[start : start + 256]) * spectrum, s=(size, size))
        fits = np.fft.fftshift(fits, axes=(1, 2))[:, near, near]
        best = fits.reshape(len(fits), -1).argmax(1)
        heights[start : start + 256] = fits.reshape(len(fits), -1).max(1)
        for number, (row, column) in enumerate(zip(*np.unravel_index(best, fits.shape[1:]), strict=True)):
            peaks[start + number] = (
                row + _vertex(fits[number, :, column], row) - reach,
                column + _vertex(fits[number, row], column) - reach,
            )
    return peaks, heights / (np.linalg.norm(edges, axis=(1, 2)) * np.linalg.norm(reference) + 1e-9)


def _vertex(values: np.ndarray, peak: int) -> float:
    """Vertex of the parabola through a peak and its neighbours, relative to the peak, in -0.5..0.5."""
    if peak in (0, len(values) - 1):
        return 0.0
    before, top, after = values[peak - 1 : peak + 2]
    bend = before - 2 * top + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
