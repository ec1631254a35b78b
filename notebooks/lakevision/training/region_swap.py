"""Augmentation by exchanged regions: images carry another photograph's object and label."""

from typing import Any

import numpy as np

from lakevision.dataset import object_region

NEAREST = 8  # donors with similar surroundings kept for each training image


def donors(pixels: np.ndarray, targets: np.ndarray, region: Any) -> np.ndarray:
    """Donors with similar surroundings for each training image, equally many of each class.

    pixels: uint8 (n, side, side, 3). targets: int (n,). region: object_region.Region. Returns int (n, k), k about
    NEAREST.

    A shortcut in the surroundings (a sticker) makes the images of one class alike. Without donors of each class, the
    nearest images would never bring another label.
    """
    cells = object_region.surroundings(pixels, region)[1]
    squares = (cells**2).sum(1)
    classes = np.unique(targets)
    donors_by_class = []
    for label in classes:
        members = np.flatnonzero(targets == label)
        count = max(1, NEAREST // len(classes))
        near = np.empty((len(pixels), count), int)
        for start in range(0, len(pixels), 512):  # 512 rows of distances at a time bound the memory
            part = np.arange(start, min(start + 512, len(pixels)))
            distance = squares[part, None] + squares[members] - 2 * cells[part] @ cells[members].T
            distance[part[:, None] == members] = np.inf  # an image is its own donor only if its class has no other
            nearest = np.argsort(distance, axis=1)[:, :count]
            near[part] = members[np.resize(nearest.T, (count, len(part))).T]
        donors_by_class.append(near)
    return np.concatenate(donors_by_class, axis=1)


def augment(
    pixels: np.ndarray,
    targets: np.ndarray,
    index: np.ndarray,
    near: np.ndarray,
    share: float,
    region: Any,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """A batch in which about `share` of the images carry the region and the label of a donor.

    pixels: uint8 (n, side, side, 3). targets: int (n,). index: int (m,), the batch. near: of donors(). region:
    object_region.Region. Returns float32 pixels (m, side, side, 3) and int32 targets (m,).

    Donors come equally often from the same class and from another, so a seam tells nothing about the label.
    """
    base, labels = pixels[index].astype(np.float32), targets[index].copy()
    swapped = np.flatnonzero(rng.random(len(index)) < share)
    if len(swapped):
        donor = near[index[swapped], rng.integers(0, near.shape[1], len(swapped))]
        base[swapped] = object_region.paste(base[swapped], pixels[donor], region)
        labels[swapped] = targets[donor]
    return base, labels
