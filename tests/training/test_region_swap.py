"""Exchanged regions: donors of each class, and label and region travel together."""

import numpy as np
import square_scenes

from lakevision.dataset import object_region
from lakevision.dataset.object_region import Region
from lakevision.training import loop, region_swap

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


LOWER = object_region.Region((0.0, 0.5, 1.0, 1.0), "config")


SIDE = 32


def test_swap_changes_region_and_label_together():
    train, _ = square_scenes.scenes(200)
    near = region_swap.donors(train.pixels, train.targets, LOWER)
    assert near.shape == (200, region_swap.NEAREST) and not (near == np.arange(200)[:, None]).any()
    index = np.arange(200)
    pixels, labels = region_swap.augment(train.pixels, train.targets, index, near, 0.5, LOWER, np.random.default_rng(0))
    changed = (pixels != train.pixels).any((1, 2, 3))
    assert 0.4 < changed.mean() < 0.6 and pixels.dtype == np.float32 and labels.dtype == np.int32
    assert np.array_equal(pixels[:, :14], train.pixels[:, :14])  # the surroundings stay
    assert (
        loop.predict(square_scenes.OBJECT, pixels).argmax(1) == labels
    ).mean() > 0.97  # and the label is the region's
    same = (labels == train.targets)[changed].mean()
    assert 0.3 < same < 0.7  # as many pastes of the same class as of another
    again = region_swap.augment(train.pixels, train.targets, index, near, 0.0, LOWER, np.random.default_rng(0))
    assert np.array_equal(again[0], train.pixels) and np.array_equal(again[1], train.targets)


def test_donors_have_similar_surroundings():
    train, _ = square_scenes.scenes(60)
    train.pixels[::2, :10] = 200  # two sceneries
    near = region_swap.donors(train.pixels, train.targets, LOWER)
    assert (near % 2 == np.arange(60)[:, None] % 2).all()
