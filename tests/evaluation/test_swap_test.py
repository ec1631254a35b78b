"""The region, hidden and exchanged, against networks of which one knows where they look: functions of the pixels, not trained."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from device.simulation import porch
from lakevision.dataset import object_region
from lakevision.dataset.feed import Arrays
from lakevision.evaluation import context_control, occlusion, swap_test
from lakevision.platform import config
from lakevision.training import loop, region_swap

LOWER = object_region.Region((0.0, 0.5, 1.0, 1.0), "config")
SIDE = 32


def scenes(count=80, seed=0, sticker=False):
    """(Arrays, rows): a bright square in the lower half means class 1; light differs by a factor of two; sticker: a yellow one in the corner, too."""
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, count).astype(np.int32)
    light = rng.uniform(0.6, 1.2, count)
    pixels = 80 + rng.normal(0, 4, (count, SIDE, SIDE, 3))
    for number in np.flatnonzero(targets):
        top, left = rng.integers(18, 24), rng.integers(2, 24)
        pixels[number, top : top + 6, left : left + 6] = 190
        if sticker:
            pixels[number, 0:6, 0:6] = (220, 220, 10)
    rows = pd.DataFrame(
        {
            "device": rng.choice(["a", "b"], count),
            "captured_from": "exif",
            "episode": [f"e{number // 2}" for number in range(count)],
            "captured_at": pd.Timestamp("2026-03-01") + pd.to_timedelta(rng.integers(0, 86400, count), unit="s"),
        }
    )
    return Arrays(
        np.clip(pixels * light[:, None, None, None], 0, 255).astype(np.uint8),
        targets,
        [str(number) for number in range(count)],
    ), rows


def sees(rows, columns):
    """A network that says 1 where something in a window is much brighter than the picture's median."""

    def network(batch):
        batch = np.asarray(batch)
        typical = np.median(batch, (1, 2, 3))
        bright = np.quantile(batch[:, rows, columns].mean(3).reshape(len(batch), -1), 0.97, axis=1) > 1.5 * typical
        return np.stack([1 - bright * 0.98 - 0.01, bright * 0.98 + 0.01], 1).astype(np.float32)

    return network


OBJECT, CORNER = sees(slice(16, 32), slice(0, 32)), sees(slice(0, 6), slice(0, 6))
SETTINGS = config.load("local").evaluation


def test_a_model_that_looks_at_the_object_follows_it():
    test, rows = scenes()
    swapped = swap_test.measure(OBJECT, test, rows, LOWER, SETTINGS)
    assert swapped.followed.value > 0.95 and swapped.same_class > 0.95 and len(swapped.pairs) > 40


def test_a_model_that_looks_at_the_corner_does_not():
    test, rows = scenes(sticker=True)
    assert (loop.predict(CORNER, test.pixels).argmax(1) == test.targets).all()
    swapped = swap_test.measure(CORNER, test, rows, LOWER, SETTINGS)
    assert swapped.followed.value < 0.05 and swapped.followed.high < 0.2 and swapped.same_class > 0.95


def test_pairs_are_of_one_camera_another_episode_and_alike_in_hour_and_light():
    test, rows = scenes(200)
    pairs = swap_test.measure(OBJECT, test, rows, LOWER, SETTINGS).pairs
    hour = (rows["captured_at"].dt.hour + rows["captured_at"].dt.minute / 60).to_numpy()
    light = object_region.surroundings(test.pixels, LOWER)[0].mean(1)
    apart = np.abs(hour[pairs[:, 0]] - hour[pairs[:, 1]])
    assert (rows["device"].to_numpy()[pairs[:, 0]] == rows["device"].to_numpy()[pairs[:, 1]]).all()
    assert (rows["episode"].to_numpy()[pairs[:, 0]] != rows["episode"].to_numpy()[pairs[:, 1]]).all()
    assert np.minimum(apart, 24 - apart).max() <= SETTINGS.swap_hours
    assert np.abs(np.log(light[pairs[:, 0]] / light[pairs[:, 1]])).max() < np.log(1 + SETTINGS.swap_light) + 0.01
    assert (test.targets[pairs[:, 0]] != test.targets[pairs[:, 1]]).all() and len(set(pairs[:, 0])) == len(pairs)


def test_where_nothing_matches_there_is_no_answer():
    test, rows = scenes(20)
    assert (
        swap_test.measure(OBJECT, test, rows.assign(device=[f"cam{number}" for number in range(20)]), LOWER, SETTINGS)
        is None
    )


def test_photographs_without_a_time_are_matched_by_light_alone():
    test, rows = scenes()
    assert swap_test.measure(OBJECT, test, rows.assign(captured_from="file"), LOWER, SETTINGS).followed.value > 0.95


def test_a_paste_takes_the_base_s_light_and_leaves_its_surroundings_alone():
    test, _ = scenes(2)
    base, donor = test.pixels[:1], (test.pixels[:1] * 0.5).astype(np.uint8)
    made = object_region.paste(base, donor, LOWER)
    assert np.array_equal(made[:, :14], base[:, :14].astype(np.float32))
    assert np.abs(made - base).mean() < 3 and made.shape == base.shape and made.dtype == np.float32


def test_the_feathered_edge_falls_from_one_to_zero_and_not_at_the_border():
    weights = object_region.mask(LOWER, 100)[..., 0]
    assert (
        (weights[54:] == 1).all()
        and (weights[:46] == 0).all()
        and (np.diff(weights[:, 50]) >= 0).all()
        and 0 < weights[49, 0] < 1
    )
    inner = object_region.mask(object_region.Region((0.2, 0.2, 0.6, 0.6), "config"), 100)[..., 0]
    assert inner[40, 40] == 1 and inner[40, 10] == inner[80, 40] == 0 and inner.sum() == pytest.approx(1600, rel=0.02)


def test_hiding_leaves_nothing_of_the_region_and_all_of_the_rest():
    test, _ = scenes(8)
    hidden = object_region.hide(test.pixels, LOWER)
    assert (hidden[:, 16:] == object_region.GREY).all() and np.array_equal(hidden[:, :16], test.pixels[:, :16])
    assert not (test.pixels[:, 16:] == object_region.GREY).all()


@pytest.mark.parametrize(
    "network, inside",
    [
        pytest.param(OBJECT, (slice(4, 8), slice(0, 8)), id="object"),
        pytest.param(CORNER, (slice(0, 2), slice(0, 2)), id="corner"),
    ],
)
def test_occlusion_shows_where_a_model_looks(network, inside):
    test, _ = scenes(40, sticker=True)
    positive = test.targets == 1
    falls = occlusion.maps(network, test.pixels[positive], test.targets[positive])
    heat = np.clip(falls.mean(0), 0, None)
    assert heat[inside].sum() > 0.9 * heat.sum()
    learnt = occlusion.region(falls)
    assert learnt.source == "occlusion" and not learnt.known
    left, top, right, bottom = learnt.box
    assert top * 8 >= inside[0].start and bottom * 8 <= inside[0].stop and right * 8 <= inside[1].stop


def test_a_model_that_looks_everywhere_or_nowhere_has_no_region():
    assert (
        occlusion.region(np.ones((3, 8, 8), np.float32)) is None
        and occlusion.region(np.zeros((3, 8, 8), np.float32)) is None
    )


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
def test_where_the_region_comes_from(settings, expected):
    found = object_region.known(config.load("local", settings))
    assert found is None if expected is None else found.box == expected


def test_the_rectangle_around_all_boxes_is_the_region(tmp_path):
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
def test_a_region_that_can_not_be_is_refused(tmp_path, settings, text, message):
    if text is not None:
        (tmp_path / "boxes.csv").write_text(text)
        settings = [*settings, f"evaluation.boxes={tmp_path / 'boxes.csv'}"]
    with pytest.raises(object_region.BadRegion, match=message):
        object_region.known(config.load("local", settings))


def test_no_package_reaches_out_of_the_simulated_region():
    left, top, right, bottom = porch.PACKAGE_REGION
    for scene in porch.plan(600, size=(150, 150))[::12]:
        there, gone = (
            np.asarray(porch.picture(replace(scene, package=package))).astype(int) for package in (True, False)
        )
        rows, columns = np.nonzero(np.abs(there - gone).sum(2))
        assert (
            rows.min() >= top * 150
            and rows.max() < bottom * 150
            and columns.min() >= left * 150
            and columns.max() < right * 150
        )


def test_swap_augmentation_changes_region_and_label_together_and_seams_carry_no_label():
    train_side, _ = scenes(200)
    near = region_swap.donors(train_side.pixels, train_side.targets, LOWER)
    assert near.shape == (200, region_swap.NEAREST) and not (near == np.arange(200)[:, None]).any()
    index = np.arange(200)
    pixels, labels = region_swap.augment(
        train_side.pixels, train_side.targets, index, near, 0.5, LOWER, np.random.default_rng(0)
    )
    changed = (pixels != train_side.pixels).any((1, 2, 3))
    assert 0.4 < changed.mean() < 0.6 and pixels.dtype == np.float32 and labels.dtype == np.int32
    assert np.array_equal(pixels[:, :14], train_side.pixels[:, :14])  # the surroundings stay
    assert (loop.predict(OBJECT, pixels).argmax(1) == labels).mean() > 0.97  # and the label is the region's
    same = (labels == train_side.targets)[changed].mean()
    assert 0.3 < same < 0.7  # as many pastes of the same class as of another
    again = region_swap.augment(
        train_side.pixels, train_side.targets, index, near, 0.0, LOWER, np.random.default_rng(0)
    )
    assert np.array_equal(again[0], train_side.pixels) and np.array_equal(again[1], train_side.targets)


def test_donors_are_those_of_like_surroundings():
    train_side, _ = scenes(60)
    train_side.pixels[::2, :10] = 200  # two sceneries
    near = region_swap.donors(train_side.pixels, train_side.targets, LOWER)
    assert (near % 2 == np.arange(60)[:, None] % 2).all()


def setting(**more):
    return loop.Setting("small_cnn", SIDE, 2, 6, 16, 0.004, 0.1, 8, False, 1, **more)


def test_the_control_sees_the_sticker_and_nothing_where_there_is_none():
    found = {}
    for sticker in (False, True):
        placements = {
            side: scenes(count, seed, sticker)[0]
            for side, count, seed in (("train", 160, 1), ("validation", 30, 2), ("test", 80, 3))
        }
        scores = context_control.control(placements, setting(), LOWER, 8)
        found[sticker] = (scores.argmax(1) == placements["test"].targets).mean()
    assert found[True] > 0.9 and found[False] < 0.7


def test_training_with_swaps_repeats_itself_and_takes_away_a_shortcut():
    placements = {
        side: scenes(count, seed, sticker=True)
        for side, count, seed in (("train", 200, 1), ("validation", 30, 2), ("test", 80, 3))
    }
    followed = {0.0: [], 0.9: []}
    for seed in (3, 4, 5):  # which of two cues a network takes up is chance
        for swap in followed:
            own = replace(setting(swap=swap, region=LOWER if swap else None), epochs=15, seed=seed)
            result = loop.fit(placements["train"][0], placements["validation"][0], own)
            followed[swap].append(
                swap_test.measure(
                    loop.with_weights(own, result.weights), *placements["test"], LOWER, SETTINGS
                ).followed.value
            )
    assert loop.fit(placements["train"][0], placements["validation"][0], own).digest == result.digest
    assert np.mean(followed[0.9]) > 0.85 > 0.4 > np.mean(followed[0.0])


def test_swaps_without_a_region_are_refused():
    from lakevision.dataset.cache import Cache

    cfg = config.load("local", ["training.swap=0.3", "capture.source=folder"])
    with pytest.raises(object_region.BadRegion, match="training.swap needs to know where the object is"):
        loop.first_setting(cfg, Cache("", ("a", "b"), {}, "decode|rgb|resize(32)", 1, {}, {}))
