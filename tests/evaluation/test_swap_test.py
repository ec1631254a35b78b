"""The region, hidden and exchanged, against networks of which one knows where they look: functions of the pixels,
not trained.
"""

from dataclasses import replace

import numpy as np
import pytest
from square_scenes import CORNER, LOWER, OBJECT, SIDE, scenes

from lakevision.dataset import object_region
from lakevision.evaluation import swap_test
from lakevision.platform import config
from lakevision.training import loop

SETTINGS = config.load("local").evaluation


def test_model_that_sees_the_object_follows_it():
    test, rows = scenes()
    swapped = swap_test.measure(OBJECT, test, rows, LOWER, SETTINGS)
    assert swapped.followed.value > 0.95 and swapped.same_class > 0.95 and len(swapped.pairs) > 40


def test_model_that_sees_the_corner_does_not_follow():
    test, rows = scenes(sticker=True)
    assert (loop.predict(CORNER, test.pixels).argmax(1) == test.targets).all()
    swapped = swap_test.measure(CORNER, test, rows, LOWER, SETTINGS)
    assert swapped.followed.value < 0.05 and swapped.followed.high < 0.2 and swapped.same_class > 0.95


def test_pairs_match_camera_hour_and_light():
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


def test_without_matching_pairs_there_is_no_result():
    test, rows = scenes(20)
    assert (
        swap_test.measure(OBJECT, test, rows.assign(device=[f"cam{number}" for number in range(20)]), LOWER, SETTINGS)
        is None
    )


def test_untimed_photographs_are_matched_by_light():
    test, rows = scenes()
    assert swap_test.measure(OBJECT, test, rows.assign(captured_from="file"), LOWER, SETTINGS).followed.value > 0.95


def setting(**more):
    return loop.Setting("small_cnn", SIDE, 2, 6, 16, 0.004, 0.1, 8, False, 1, **more)


@pytest.mark.slow
def test_training_with_swaps_repeats_and_weakens_shortcut():
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
