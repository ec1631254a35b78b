"""The region of the picture that holds the object, and how to hide it or exchange it.

The region comes from the configuration, from bounding boxes, from the simulated porch, or from the model by occlusion.
A network that is shown pictures with the region hidden sees the surroundings only. A network that is shown pictures
with the region exchanged sees another object in the same surroundings.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from lakevision.platform.config import Config

GREY = 127  # fills a hidden region: the same value in all images, so that the filling carries no label
LARGEST = 0.85  # a region larger than this share of the picture leaves too little surroundings
FEATHER = 0.04  # width of a pasted region's soft edge, as a share of the picture's width


class BadRegion(ValueError):
    """The configured region cannot be used; the message names the setting."""


@dataclass(frozen=True)
class Region:
    """A rectangle in the picture.

    box: left, top, right, bottom as shares of the picture that the model sees; source: config, boxes, simulated or
    occlusion.
    """

    box: tuple
    source: str

    @property
    def known(self) -> bool:
        """True unless the region was learnt from the model by occlusion.

        A region from occlusion shows the part of the picture that the model uses, which may be a shortcut.
        """
        return self.source != "occlusion"

    def __str__(self) -> str:
        return f"{', '.join(f'{edge:.2f}' for edge in self.box)} ({self.source})"


def known(cfg: Config) -> Region | None:
    """The region that is known before training, or None. Raises BadRegion."""
    source: str = cfg.evaluation.region_from
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


def wanted_from_occlusion(cfg: Config) -> bool:
    """True if the region must be learnt from the model, because the settings give none. Raises BadRegion."""
    return known(cfg) is None and cfg.evaluation.region_from != "none"


def _checked(box: tuple, source: str, setting: str) -> Region:
    left, top, right, bottom = box
    if not (left < right and top < bottom):
        raise BadRegion(
            f"{setting}: left, top, right, bottom must grow from left to right and from top to bottom, got {list(box)}"
        )
    if (right - left) * (bottom - top) > LARGEST:
        raise BadRegion(
            f"{setting}: {list(box)} covers more than {LARGEST:.0%} of the picture and leaves no surroundings to "
            "compare with. Name the part that holds the object, or set evaluation.region_from=occlusion or none"
        )
    return Region(tuple(map(float, box)), source)


def _around_boxes(path: str) -> tuple:
    """The rectangle around all bounding boxes of a CSV file, as shares of the picture.

    All images share one rectangle. A box for each image would give the label away, because only images with an object
    have boxes.
    """
    if not path:
        raise BadRegion("evaluation.region_from is boxes, but evaluation.boxes names no file")
    edges = ("left", "top", "right", "bottom")
    try:
        with open(path, newline="", encoding="utf-8") as file:
            boxes = np.array([[float(row[edge]) for edge in edges] for row in csv.DictReader(file)])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise BadRegion(
            f"evaluation.boxes {path}: expected a CSV of path,left,top,right,bottom in shares of the picture "
            f"({error!r})"
        ) from error
    if not len(boxes) or boxes.min() < 0 or boxes.max() > 1:
        span = f" from {boxes.min():g} to {boxes.max():g}" if len(boxes) else ""
        raise BadRegion(f"evaluation.boxes {path}: boxes are shares from 0 to 1, got {len(boxes)} boxes{span}")
    return (*boxes[:, :2].min(0), *boxes[:, 2:].max(0))


def pixels_of(region: Region, image_size: int) -> tuple[slice, slice]:
    """The region as slices (rows, columns) of a picture of image_size x image_size pixels."""
    left, top, right, bottom = (round(edge * image_size) for edge in region.box)
    return slice(top, bottom), slice(left, right)


def hide(pixels: np.ndarray, region: Region) -> np.ndarray:
    """A copy of uint8 pixels (n, image_size, image_size, 3) with the region filled with GREY."""
    hidden = pixels.copy()
    hidden[(slice(None), *pixels_of(region, pixels.shape[1]))] = GREY
    return hidden


def mask(region: Region, image_size: int) -> np.ndarray:
    """Blending weights of a pasted region, float32 (image_size, image_size, 1).

    The weight is 1 inside the region and falls to 0 outside over FEATHER. At the picture's own border it does not fall.
    """
    rows, columns = pixels_of(region, image_size)
    feather = max(1.0, FEATHER * image_size)
    centre = np.arange(image_size) + 0.5
    ramps = [
        np.minimum(
            1 if part.start == 0 else (centre - part.start) / feather + 0.5,
            1 if part.stop == image_size else (part.stop - centre) / feather + 0.5,
        )
        for part in (rows, columns)
    ]
    vertical, horizontal = (np.clip(ramp * np.ones(image_size), 0, 1) for ramp in ramps)
    return (vertical[:, None] * horizontal[None, :]).astype(np.float32)[..., None]


def surroundings(pixels: np.ndarray, region: Region) -> tuple[np.ndarray, np.ndarray]:
    """Mean colours of the picture outside the region.

    pixels: uint8 or float (n, image_size, image_size, 3). Returns the mean colour of all surroundings, float32 (n, 3),
    and of each of 8 x 8 cells, float32 (n, 192). Cells inside the region are 0.
    """
    image_size = pixels.shape[1]
    outside = 1 - mask(region, image_size)
    mean_colour = (pixels * outside).sum((1, 2)) / outside.sum()
    edges = np.linspace(0, image_size, 9).astype(int)
    weighted = np.add.reduceat(np.add.reduceat(pixels * outside, edges[:-1], 1), edges[:-1], 2)
    weights = np.add.reduceat(np.add.reduceat(outside, edges[:-1], 0), edges[:-1], 1)
    cells = (weighted / np.maximum(weights, 1)).reshape(len(pixels), -1)
    return mean_colour.astype(np.float32), cells.astype(np.float32)


def paste(base: np.ndarray, donor: np.ndarray, region: Region) -> np.ndarray:
    """Pictures with the surroundings of base and the region of donor, with a soft edge.

    The donor's light is matched to the base's light: in each channel by the ratio of their mean surroundings, at most a
    factor of 2. base, donor: uint8 or float (n, image_size, image_size, 3). Returns float32 from 0 to 255.
    """
    ratio = (surroundings(base, region)[0] + 1) / (surroundings(donor, region)[0] + 1)
    gain = np.clip(ratio, 0.5, 2.0)[:, None, None, :]
    weights = mask(region, base.shape[1])
    return np.clip(base * (1 - weights) + donor * gain * weights, 0, 255).astype(np.float32)
