"""Exchanged regions: donors of each class, and label and region travel together."""

import numpy as np

from lakevision.dataset.object_region import Region
from lakevision.training import region_swap

LOWER = Region((0.0, 0.5, 1.0, 1.0), "config")


def scenes(count=40, side=16, seed=1):
    """Pixels whose lower half is bright for class 1 and dark for class 0; targets."""
    rng = np.random.default_rng(seed)
    targets = np.arange(count) % 2
    pixels = rng.integers(90, 110, (count, side, side, 3)).astype(np.uint8)
    pixels[:, side // 2 :] = np.where(targets == 1, 220, 30)[:, None, None, None]
    return pixels, targets.astype(np.int32)


def test_donors_come_from_each_class():
    pixels, targets = scenes()
    near = region_swap.donors(pixels, targets, LOWER)
    assert near.shape == (40, region_swap.NEAREST)
    shares = (targets[near] == 1).mean(1)
    assert np.all(shares == 0.5) and not np.any(near == np.arange(40)[:, None]), "no image is its own donor"


def test_single_image_of_a_class_is_its_own_donor():
    pixels, _ = scenes()
    targets = np.array([1] + [0] * 39, np.int32)
    near = region_swap.donors(pixels, targets, LOWER)
    assert set(near[0][targets[near[0]] == 1]) == {0}


def test_label_travels_with_the_region():
    pixels, targets = scenes()
    near = region_swap.donors(pixels, targets, LOWER)
    index = np.arange(40)
    base, labels = region_swap.augment(pixels, targets, index, near, 1.0, LOWER, np.random.default_rng(2))
    assert base.dtype == np.float32 and labels.dtype == np.int32 and (labels != targets).any()
    assert np.all((base[:, -2:].mean((1, 2, 3)) > 125) == (labels == 1))
    assert np.array_equal(pixels, scenes()[0]), "the originals stay as they are"


def test_share_zero_changes_nothing():
    pixels, targets = scenes()
    near = region_swap.donors(pixels, targets, LOWER)
    base, labels = region_swap.augment(pixels, targets, np.arange(40), near, 0.0, LOWER, np.random.default_rng(2))
    assert np.array_equal(base, pixels) and np.array_equal(labels, targets)
