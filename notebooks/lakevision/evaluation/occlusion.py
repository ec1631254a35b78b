"""Where a model looks: hide a part, and see how much less sure it becomes.

Zeiler and Fergus, Visualizing and Understanding Convolutional Networks, 2014.
"""

import numpy as np

from lakevision.dataset.object_region import Region
from lakevision.training import loop

GRID = 8  # cells in each direction; the hidden window is two cells wide, so that neighbours overlap
SHARE = 0.8  # a learnt region holds this share of all that hiding costs
LARGEST = 0.6  # and covers no more of the picture than this: a model that looks all over has no region


def maps(network, pixels, targets):
    """How much each class's probability falls where a window round each cell is hidden: float32 (n, GRID, GRID), negative where it grows.

    network: callable on float32 batches; pixels: uint8 (n, side, side, 3); targets: int (n,), the class looked for. The window is filled with the
    image's own mean colour.
    """
    side, cell = pixels.shape[1], pixels.shape[1] / GRID
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
                int(np.clip(edge, 0, side))
                for edge in ((row - 0.5) * cell, (row + 1.5) * cell, (column - 0.5) * cell, (column + 1.5) * cell)
            )
            hidden[:, top:bottom, left:right] = fill
            falls[:, row, column] = before - loop.predict(network, hidden)[rows, targets]
    return falls


def region(falls):
    """The smallest rectangle that holds SHARE of what hiding costs on average, as a Region; None where it would be most of the picture, or where
    hiding costs nothing. falls: of maps()."""
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
