"""Augmentation by exchanged regions: some images of a batch carry the object of another photograph, and its label."""

import numpy as np

from lakevision.dataset import object_region

NEAREST = 8  # donors of like surroundings kept for each training image


def donors(pixels, targets, region):
    """For each training image others of like surroundings, as many of each class: int (n, k), about NEAREST. pixels: uint8 (n, side, side, 3);
    targets: int (n,).

    Of each class, since what gives the label away in the surroundings (a sticker) makes those of one class alike: the nearest alone would never
    bring another label.
    """
    cells = object_region.surroundings(pixels, region)[1]
    squares = (cells**2).sum(1)
    classes = np.unique(targets)
    found = []
    for label in classes:
        members = np.flatnonzero(targets == label)
        count = max(1, NEAREST // len(classes))
        near = np.empty((len(pixels), count), int)
        for start in range(0, len(pixels), 512):  # 512 rows of distances at a time bound the memory
            part = np.arange(start, min(start + 512, len(pixels)))
            distance = squares[part, None] + squares[members] - 2 * cells[part] @ cells[members].T
            distance[part[:, None] == members] = np.inf  # itself only where the class has no other
            nearest = np.argsort(distance, axis=1)[:, :count]
            near[part] = members[np.resize(nearest.T, (count, len(part))).T]
        found.append(near)
    return np.concatenate(found, axis=1)


def augment(pixels, targets, index, near, share, region, rng):
    """A batch in which about `share` of the images carry the region of another one of like surroundings, and its label: float32 pixels, int32
    targets.

    The donor's class is whatever it is, so as many regions come from the same class as from another, and a seam tells nothing.
    index: int (m,) of the batch in pixels and targets; near: of donors(); rng: numpy Generator.
    """
    base, labels = pixels[index].astype(np.float32), targets[index].copy()
    swapped = np.flatnonzero(rng.random(len(index)) < share)
    if len(swapped):
        donor = near[index[swapped], rng.integers(0, near.shape[1], len(swapped))]
        base[swapped] = object_region.paste(base[swapped], pixels[donor], region)
        labels[swapped] = targets[donor]
    return base, labels
