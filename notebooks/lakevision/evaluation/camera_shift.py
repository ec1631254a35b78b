"""Where a camera points, from its pictures alone: how far each is shifted against the others of its camera.

A camera that was moved between two batches of labels tells them apart, and no metadata says so.
"""

import numpy as np

ROUNDS = 2  # against one picture first, then against the mean of the aligned ones
SAMPLE = 60  # pictures of a camera that the reference is made of
REACH = 0.15  # shifts looked for, share of the side; more is another scene
FIXED = 0.4  # correlation of aligned edges from which a camera's pictures count as one view; photographs of different places have less than 0.2


def shifts(pixels, cameras, region=None):
    """Shift of each picture to the right and down against its camera's mean, shares of the side, float32 (n, 2); nan for cameras with no fixed view.

    pixels: uint8 (n, side, side, 3); cameras: n names; region: a object_region.Region that is left out, for what stands there moves by itself.
    The peak of the cross-correlation of edges, found by FFT, to a fraction of a pixel by a parabola.
    """
    edges = _edges(pixels, region)
    found = np.zeros((len(pixels), 2), np.float32)
    cameras = np.asarray(cameras, dtype=object)
    for camera in sorted(set(cameras)):
        rows = np.flatnonzero(cameras == camera)
        sample = rows[:: max(1, len(rows) // SAMPLE)]
        reference = edges[sample[np.argsort(edges[sample].sum((1, 2)))[len(sample) // 2]]]
        for _ in range(ROUNDS):
            apart, _ = _peaks(edges[sample], reference)
            reference = np.mean(
                [
                    np.roll(edge, tuple(-np.round(shift).astype(int)), (0, 1))
                    for edge, shift in zip(edges[sample], apart)
                ],
                0,
            )
        apart, fit = _peaks(edges[rows], reference)
        found[rows] = (apart - apart.mean(0))[:, ::-1] / pixels.shape[1] if np.median(fit) >= FIXED else np.nan
    return found


def _edges(pixels, region):
    """Size of the gradient of the logarithm of luma, which light does not scale; float32 (n, side, side), mean 0."""
    luma = np.log(pixels.astype(np.float32).mean(3) + 8)
    size = np.hypot(np.gradient(luma, axis=1), np.gradient(luma, axis=2))
    size = np.minimum(size, 0.5)
    if region is not None:
        from lakevision.dataset.object_region import pixels_of

        rows, columns = pixels_of(region, pixels.shape[1])
        size[:, max(0, rows.start - 2) : rows.stop + 2, max(0, columns.start - 2) : columns.stop + 2] = 0
    return size - size.mean((1, 2), keepdims=True)


def _peaks(edges, reference):
    """Where each picture fits the reference best: (float (n, 2), rows and columns in pixels; float (n,), the correlation there)."""
    side = edges.shape[1]
    reach = max(2, int(REACH * side))
    found, top = np.empty((len(edges), 2)), np.empty(len(edges))
    spectrum = np.conj(np.fft.rfft2(reference))
    for start in range(0, len(edges), 256):
        fits = np.fft.irfft2(np.fft.rfft2(edges[start : start + 256]) * spectrum, s=(side, side))
        fits = np.fft.fftshift(fits, axes=(1, 2))[
            :, side // 2 - reach : side // 2 + reach + 1, side // 2 - reach : side // 2 + reach + 1
        ]
        place = fits.reshape(len(fits), -1).argmax(1)
        top[start : start + 256] = fits.reshape(len(fits), -1).max(1)
        for number, (row, column) in enumerate(zip(*np.unravel_index(place, fits.shape[1:]))):
            found[start + number] = (
                row + _vertex(fits[number, :, column], row) - reach,
                column + _vertex(fits[number, row], column) - reach,
            )
    return found, top / (np.linalg.norm(edges, axis=(1, 2)) * np.linalg.norm(reference) + 1e-9)


def _vertex(values, place):
    """The top of the parabola through a peak and its neighbours, relative to the peak, in -0.5..0.5."""
    if place in (0, len(values) - 1):
        return 0.0
    before, top, after = values[place - 1 : place + 2]
    bend = before - 2 * top + after
    return 0.0 if bend >= 0 else float(np.clip(0.5 * (before - after) / bend, -0.5, 0.5))
