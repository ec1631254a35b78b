"""Occlusion maps show where a model looks."""

import numpy as np
import pytest
from square_scenes import CORNER, OBJECT, scenes

from lakevision.evaluation import occlusion


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


def test_model_without_a_focus_has_no_region():
    assert (
        occlusion.region(np.ones((3, 8, 8), np.float32)) is None
        and occlusion.region(np.zeros((3, 8, 8), np.float32)) is None
    )
