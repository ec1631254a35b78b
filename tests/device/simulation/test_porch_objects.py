"""The drawn objects."""

import random

import pytest
from PIL import Image, ImageChops

from device.simulation import porch_objects


@pytest.mark.parametrize("draw", [porch_objects.draw_package, porch_objects.draw_clutter], ids=["package", "clutter"])
def test_object_is_drawn_at_its_foot_and_repeatable(draw):
    def drawn():
        canvas = Image.new("RGB", (300, 300), "grey")
        draw(canvas, (150, 200), 120, random.Random(5))
        return canvas

    box = ImageChops.difference(drawn(), Image.new("RGB", (300, 300), "grey")).getbbox()
    assert drawn().tobytes() == drawn().tobytes()
    assert box and box[0] < 150 < box[2] and box[1] < 200 <= box[3]


def test_shade_stays_within_a_byte():
    assert porch_objects.shade((10, 200, 255), 2) == (20, 255, 255)
    assert porch_objects.shade((10, 200, 255), 0) == (0, 0, 0)
