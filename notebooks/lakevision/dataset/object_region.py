"""Where in the picture the object is: from the configuration, from boxes, known of the simulated porch, or learnt from the model by occlusion.

With the region hidden, a network sees the surroundings only; with the region exchanged, it sees another object in the same surroundings.
"""

import csv
from dataclasses import dataclass

import numpy as np

GREY = 127  # what a hidden region is filled with: one value for all images, so that the filling tells nothing
LARGEST = 0.85  # a region larger than this share of the picture leaves no surroundings to speak of
FEATHER = 0.04  # width of a pasted region's soft edge, share of the picture's side


class BadRegion(ValueError):
    """The region that was configured can't be used; the message names the setting."""


@dataclass(frozen=True)
class Region:
    """box: left, top, right, bottom, shares of the picture as the model sees it; source: config, boxes, simulated or occlusion."""

    box: tuple
    source: str

    @property
    def known(self):
        """Whether somebody who knows said it. One learnt from the model shows where that model looks, which may be a shortcut."""
        return self.source != "occlusion"

    def __str__(self):
        return f"{', '.join(f'{edge:.2f}' for edge in self.box)} ({self.source})"


def known(cfg):
    """The Region that is known before any model is, or None. Raises BadRegion."""
    source = cfg.evaluation.region_from
    if source == "auto":
        source = "simulated" if cfg.capture.source == "simulated" else "boxes" if cfg.evaluation.boxes else "occlusion"
    if source == "simulated":
        from device.simulation import porch

        return Region(porch.PACKAGE_REGION, "simulated")
    if source == "config":
        return _checked(cfg.evaluation.region, "config", "evaluation.region")
    if source == "boxes":
        return _checked(_around_boxes(cfg.evaluation.boxes), "boxes", f"evaluation.boxes {cfg.evaluation.boxes}")
    return None


def wanted_from_occlusion(cfg):
    """Whether the region is to be learnt from the model, since nobody knows it."""
    return known(cfg) is None and cfg.evaluation.region_from != "none"


def _checked(box, source, setting):
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise BadRegion(
            f"{setting}: left, top, right, bottom must grow from left to right and from top to bottom, got {list(box)}"
        )
    if (right - left) * (bottom - top) > LARGEST:
        raise BadRegion(
            f"{setting}: {list(box)} covers more than {LARGEST:.0%} of the picture and leaves no surroundings to compare with. "
            "Name the part that holds the object, or say evaluation.region_from=occlusion or none"
        )
    return Region(tuple(map(float, box)), source)


def _around_boxes(path):
    """The rectangle around all boxes of a file: one for all images, since boxes stand where objects are, and would tell the label by themselves."""
    if not path:
        raise BadRegion("evaluation.region_from is boxes, but evaluation.boxes names no file")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            boxes = np.array(
                [[float(row[edge]) for edge in ("left", "top", "right", "bottom")] for row in csv.DictReader(file)]
            )
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadRegion(
            f"evaluation.boxes {path}: expected a CSV of path,left,top,right,bottom in shares of the picture ({error!r})"
        ) from error
    if not len(boxes) or boxes.min() < 0 or boxes.max() > 1:
        span = f" from {boxes.min():g} to {boxes.max():g}" if len(boxes) else ""
        raise BadRegion(f"evaluation.boxes {path}: boxes are shares from 0 to 1, got {len(boxes)} boxes{span}")
    return (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))


def pixels_of(region, side):
    """A Region as slices (rows, columns) of a picture of side x side pixels."""
    left, top, right, bottom = (round(edge * side) for edge in region.box)
    return slice(top, bottom), slice(left, right)


def hide(pixels, region):
    """A copy of uint8 pixels (n, side, side, 3) with the region grey."""
    hidden = pixels.copy()
    hidden[(slice(None), *pixels_of(region, pixels.shape[1]))] = GREY
    return hidden


def mask(region, side):
    """Weights of a pasted region, float32 (side, side, 1): 1 inside, falling to 0 outside over FEATHER; no edge at the picture's own border."""
    rows, columns = pixels_of(region, side)
    wide = max(1.0, FEATHER * side)
    place = np.arange(side) + 0.5
    across = [
        np.minimum(
            1 if part.start == 0 else (place - part.start) / wide + 0.5,
            1 if part.stop == side else (part.stop - place) / wide + 0.5,
        )
        for part in (rows, columns)
    ]
    down, along = (np.clip(weights * np.ones(side), 0, 1) for weights in across)
    return (down[:, None] * along[None, :]).astype(np.float32)[..., None]


def surroundings(pixels, region):
    """Mean colour of what is not the region, float32 (n, 3), and of each of 8 x 8 cells of it, float32 (n, 192), 0 inside the region."""
    side = pixels.shape[1]
    outside = 1 - mask(region, side)
    light = (pixels * outside).sum((1, 2)) / outside.sum()
    edges = np.linspace(0, side, 9).astype(int)
    weighted = np.add.reduceat(np.add.reduceat(pixels * outside, edges[:-1], 1), edges[:-1], 2)
    weights = np.add.reduceat(np.add.reduceat(outside, edges[:-1], 0), edges[:-1], 1)
    return light.astype(np.float32), (weighted / np.maximum(weights, 1)).reshape(len(pixels), -1).astype(np.float32)


def paste(base, donor, region):
    """Pictures with the surroundings of base and the region of donor, feathered, and the donor's light matched to the base's by the ratio of their
    surroundings in each channel. base, donor: uint8 or float (n, side, side, 3). Returns float32 in 0..255."""
    gain = np.clip((surroundings(base, region)[0] + 1) / (surroundings(donor, region)[0] + 1), 0.5, 2.0)[
        :, None, None, :
    ]
    weights = mask(region, base.shape[1])
    return np.clip(base * (1 - weights) + donor * gain * weights, 0, 255).astype(np.float32)
