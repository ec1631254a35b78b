"""The object's region: its sources, its checks, and how it is hidden and exchanged."""

from dataclasses import replace

import numpy as np
import pytest

from device.simulation import porch
from lakevision.dataset import object_region
from lakevision.platform import config

LOWER = object_region.Region((0.0, 0.5, 1.0, 1.0), "config")


def scenes(count):
    """Noisy pictures, uint8 (count, 32, 32, 3), of different brightness; some show a bright square below the middle."""
    rng = np.random.default_rng(0)
    pixels = 80 + rng.normal(0, 4, (count, 32, 32, 3))
    for number in np.flatnonzero(rng.integers(0, 2, count)):
        top, left = rng.integers(18, 24), rng.integers(2, 24)
        pixels[number, top : top + 6, left : left + 6] = 190
    light = rng.uniform(0.6, 1.2, count)
    return np.clip(pixels * light[:, None, None, None], 0, 255).astype(np.uint8)


def test_paste_matches_light_and_keeps_the_surroundings():
    pixels = scenes(2)
    base, donor = pixels[:1], (pixels[:1] * 0.5).astype(np.uint8)
    made = object_region.paste(base, donor, LOWER)
    assert np.array_equal(made[:, :14], base[:, :14].astype(np.float32))
    assert np.abs(made - base).mean() < 3 and made.shape == base.shape and made.dtype == np.float32


def test_mask_falls_to_zero_but_not_at_the_border():
    weights = object_region.mask(LOWER, 100)[..., 0]
    assert (
        (weights[54:] == 1).all()
        and (weights[:46] == 0).all()
        and (np.diff(weights[:, 50]) >= 0).all()
        and 0 < weights[49, 0] < 1
    )
    inner = object_region.mask(object_region.Region((0.2, 0.2, 0.6, 0.6), "config"), 100)[..., 0]
    assert inner[40, 40] == 1 and inner[40, 10] == inner[80, 40] == 0 and inner.sum() == pytest.approx(1600, rel=0.02)


def test_hide_fills_the_region_and_keeps_the_rest():
    pixels = scenes(8)
    hidden = object_region.hide(pixels, LOWER)
    assert (hidden[:, 16:] == object_region.GREY).all() and np.array_equal(hidden[:, :16], pixels[:, :16])
    assert not (pixels[:, 16:] == object_region.GREY).all()


@pytest.mark.parametrize(
    "settings, expected",
    [
        pytest.param([], porch.PACKAGE_REGION, id="simulated"),
        pytest.param(["capture.source=folder"], None, id="nobody knows"),
        pytest.param(["evaluation.region_from=none"], None, id="none"),
        pytest.param(
            ["evaluation.region_from=config", "evaluation.region=[0, 0.5, 1, 1]"], (0, 0.5, 1, 1), id="config"
        ),
    ],
)
def test_source_of_the_region(settings, expected):
    region = object_region.known(config.load("local", settings))
    assert region is None if expected is None else region.box == expected


def test_region_is_the_rectangle_around_all_boxes(tmp_path):
    boxes = tmp_path / "boxes.csv"
    boxes.write_text("path,left,top,right,bottom\na.jpg,0.2,0.5,0.3,0.7\nb.jpg,0.5,0.4,0.8,0.6\n")
    cfg = config.load("local", ["capture.source=folder", f"evaluation.boxes={boxes}"])
    assert object_region.known(cfg) == object_region.Region((0.2, 0.4, 0.8, 0.7), "boxes")


@pytest.mark.parametrize(
    "settings, text, message",
    [
        pytest.param(["evaluation.region_from=config"], None, "covers more than 85%", id="the whole picture"),
        pytest.param(
            ["evaluation.region_from=config", "evaluation.region=[0.6, 0.5, 0.4, 1]"],
            None,
            "must grow",
            id="left of itself",
        ),
        pytest.param(["evaluation.region_from=boxes"], None, "names no file", id="no file"),
        pytest.param(
            ["evaluation.region_from=boxes"],
            "path,x,y\na,1,2\n",
            "expected a CSV of path,left,top,right,bottom",
            id="other columns",
        ),
        pytest.param(
            ["evaluation.region_from=boxes"],
            "path,left,top,right,bottom\na,10,20,100,200\n",
            "shares from 0 to 1",
            id="pixels, not shares",
        ),
        pytest.param(["evaluation.region_from=boxes"], "path,left,top,right,bottom\n", "got 0 boxes", id="no boxes"),
    ],
)
def test_bad_region_is_refused(tmp_path, settings, text, message):
    if text is not None:
        (tmp_path / "boxes.csv").write_text(text)
        settings = [*settings, f"evaluation.boxes={tmp_path / 'boxes.csv'}"]
    with pytest.raises(object_region.BadRegion, match=message):
        object_region.known(config.load("local", settings))


def test_simulated_packages_stay_inside_their_region():
    left, top, right, bottom = porch.PACKAGE_REGION
    for scene in porch.plan(600, size=(150, 150))[::12]:
        with_package, without = (
            np.asarray(porch.picture(replace(scene, package=package))).astype(int) for package in (True, False)
        )
        rows, columns = np.nonzero(np.abs(with_package - without).sum(2))
        assert (
            rows.min() >= top * 150
            and rows.max() < bottom * 150
            and columns.min() >= left * 150
            and columns.max() < right * 150
        )
