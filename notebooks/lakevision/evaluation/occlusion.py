"""Where a model looks: hide each part of a picture and measure the drop of the probability.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lakevision.dataset.object_region import Region
from lakevision.training import loop

GRID = 8  # cells in each direction; the hidden window is two cells wide, so neighbours overlap
SHARE = 0.8  # share of the total drop that a learnt region must hold
LARGEST = 0.6  # largest share of the picture for a learnt region: a model that looks everywhere has no region


def maps(network: Callable, pixels: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """Drop of one class's probability if a window around each cell is hidden: float32 (n, GRID, GRID).

    A negative value means that the probability rises. The window is filled with the image's own mean colour.
    network: callable on float32 batches; pixels: uint8 (n, size, size, 3); targets: int (n,), the class to follow.
    """
    size, cell = pixels.shape[1], pixels.shape[1] / GRID
    rows = np.arange(len(pixels))
    if not len(pixels):
        return np.empty((0, GRID, GRID), np.float32)
    before = loop.predict(network, pixels)[rows, targets]
    fill = pixels.mean((1, 2), keepdims=True).astype(np.uint8)
    falls = np.empty((len(pixels), GRID, GRID), np.float32)
    for row in range(GRID):
        for column in range(GRID):
            hidden = pixels.copy()
            top, bottom, left, right = (
                int(np.clip(edge, 0, size))
                for edge in ((row - 0.5) * cell, (row + 1.5) * cell, (column - 0.5) * cell, (column + 1.5) * cell)
            )
            hidden[:, top:bottom, left:right] = fill
            falls[:, row, column] = before - loop.predict(network, hidden)[rows, targets]
    return falls


def region(falls: np.ndarray) -> Region | None:
    """The smallest rectangle that holds SHARE of the mean drop. falls: of maps().

    None if the rectangle exceeds LARGEST of the picture, or if hiding changes nothing.
    """
    weight = np.clip(falls.mean(0), 0, None)
    if weight.sum() < 1e-6:
        return None
    sums = np.pad(weight.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    spans = [(start, stop) for start in range(GRID) for stop in range(start + 1, GRID + 1)]
    boxes = [(*rows, *columns) for rows in spans for columns in spans]
    held = {
        box: sums[box[1], box[3]] - sums[box[0], box[3]] - sums[box[1], box[2]] + sums[box[0], box[2]] for box in boxes
    }
    enough = [box for box in boxes if held[box] >= SHARE * weight.sum()]
    top, bottom, left, right = min(enough, key=lambda box: ((box[1] - box[0]) * (box[3] - box[2]), -held[box]))
    if (bottom - top) * (right - left) > LARGEST * GRID**2:
        return None
    return Region((left / GRID, top / GRID, right / GRID, bottom / GRID), "occlusion")
