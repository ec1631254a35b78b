"""The empty porch, its light and the camera's faults."""

import random

from PIL import Image, ImageStat

from device.simulation import porch_scenery


def mean(image):
    return sum(ImageStat.Stat(image).mean) / 3


def test_each_camera_has_its_own_porch():
    first, second = (porch_scenery.porch(name, (120, 90)) for name in ("porch-1", "porch-2"))
    assert first.size == (120, 90) and first.tobytes() != second.tobytes()


def test_night_has_no_sun_patches():
    canvas = Image.new("RGB", (160, 120), "white")
    porch_scenery.sun_patches(canvas, random.Random(1), 1.0, night=True)
    assert canvas.getextrema() == ((255, 255),) * 3


def test_shake_crops_to_size():
    shaken = porch_scenery.shake(Image.new("RGB", (140, 110)), (100, 70), 20, random.Random(1))
    assert shaken.size == (100, 70)


def test_more_light_gives_brighter_picture():
    grey = Image.new("RGB", (64, 64), (100, 100, 100))
    dark, bright = (porch_scenery.expose(grey, light, False, random.Random(1)) for light in (0.2, 1.0))
    assert mean(bright) > mean(dark) + 20


def test_night_picture_has_hardly_any_colour():
    red = Image.new("RGB", (64, 64), (200, 60, 60))
    day, night = (porch_scenery.expose(red, 0.5, is_night, random.Random(1)) for is_night in (False, True))

    def spread(image):
        means = ImageStat.Stat(image).mean
        return max(means) - min(means)

    assert spread(night) < spread(day) / 3
