"""The context control sees only the surroundings of the object."""

import pytest
from square_scenes import LOWER, SIDE, scenes

from lakevision.evaluation import context_control
from lakevision.training import loop


def setting(**more):
    return loop.Setting("small_cnn", SIDE, 2, 6, 16, 0.004, 0.1, 8, False, 1, **more)


@pytest.mark.slow
def test_control_sees_the_sticker_and_nothing_without():
    found = {}
    for sticker in (False, True):
        placements = {
            side: scenes(count, seed, sticker)[0]
            for side, count, seed in (("train", 160, 1), ("validation", 30, 2), ("test", 80, 3))
        }
        scores = context_control.control(placements, setting(), LOWER, 8)
        found[sticker] = (scores.argmax(1) == placements["test"].targets).mean()
    assert found[True] > 0.9 and found[False] < 0.7
