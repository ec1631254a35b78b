"""Where a camera pointed: shifts of its pictures against each other."""

import numpy as np

from lakevision.evaluation import camera_shift
from lakevision.evaluation.camera_shift import shifts


def test_shifts_are_exact_to_a_fraction_of_a_pixel(porch):
    _, pixels = porch(count=24)
    rng = np.random.default_rng(0)
    wide = np.stack([np.pad(pixels[0], ((8, 8), (8, 8), (0, 0)), mode="reflect")] * 30)
    moved = rng.integers(-4, 5, (30, 2))
    seen = np.stack([picture[8 + y : 56 + y, 8 + x : 56 + x] for picture, (x, y) in zip(wide, moved)])
    dark = (seen * rng.uniform(0.4, 1.0, (30, 1, 1, 1))).astype(np.uint8)  # light changes, too
    found = shifts(dark, ["one"] * 30) * 48
    apart = np.abs(found + moved - moved.mean(0))
    assert np.median(apart) < 0.2 and apart.max() < 1


def test_pictures_without_fixed_view_have_no_position():
    noise = np.random.default_rng(0).integers(0, 256, (30, 32, 32, 3)).astype(np.uint8)
    assert np.isnan(camera_shift.shifts(noise, ["any"] * 30)).all()
