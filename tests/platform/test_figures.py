"""The basics of all pictures: new figures, colours, confusion matrix, thumbnails."""

import io

import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import is_color_like
from PIL import Image

from lakevision.platform import figures


def photograph(size, orientation=None, mode="RGB"):
    """A black JPEG with a white left half."""
    image = Image.new("L", size)
    image.paste(255, (0, 0, size[0] // 2, size[1]))
    exif = Image.Exif()
    if orientation:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.convert(mode).save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_new_figure_is_not_open_in_pyplot():
    before = plt.get_fignums()
    figure, axes = figures.new(2, 3)
    assert axes.shape == (2, 3) and len(figure.axes) == 6 and plt.get_fignums() == before


def test_cycle_gives_each_name_a_colour_and_repeats():
    colours = figures.cycle([f"class {index}" for index in range(12)])
    assert len(colours) == 12 and colours[:2] == colours[10:] and len(set(colours[:10])) == 10
    assert all(map(is_color_like, colours)) and figures.cycle([]) == []


def test_confusion_shows_counts_with_truth_in_rows():
    _, axis = figures.new()
    figures.confusion(axis, [[9, 1], [2, 0]], ["absent", "package"])
    cells = {text.get_position(): (text.get_text(), text.get_color()) for text in axis.texts}
    assert cells == {  # (column, row): dark cells have white text
        (0, 0): ("9", "white"),
        (1, 0): ("1", "black"),
        (0, 1): ("2", "white"),
        (1, 1): ("0", "black"),
    }
    assert [label.get_text() for label in axis.get_yticklabels()] == ["absent", "package"]
    assert (axis.get_xlabel(), axis.get_ylabel()) == ("predicted", "truth")
    assert np.allclose(axis.images[0].get_array(), [[0.9, 0.1], [1, 0]])


def test_confusion_takes_a_class_without_images():
    _, axis = figures.new()
    figures.confusion(axis, np.zeros((2, 2), int), ["absent", "package"])
    assert np.isfinite(axis.images[0].get_array()).all() and [text.get_text() for text in axis.texts] == ["0"] * 4


@pytest.mark.parametrize(
    "size, expected",
    [
        pytest.param((1200, 600), (240, 120), id="wide"),
        pytest.param((600, 1200), (120, 240), id="high"),
        pytest.param((40, 30), (40, 30), id="small stays"),
    ],
)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_thumbnail_is_rgb_and_at_most_240_pixels(size, expected, mode):
    image = figures.thumbnail(photograph(size, mode=mode))
    assert (image.size, image.mode) == (expected, "RGB")


def test_thumbnail_is_turned_upright():
    image = figures.thumbnail(photograph((400, 200), orientation=6))  # turned by 90 degrees clockwise to be upright
    assert image.size == (120, 240)
    assert image.getpixel((60, 10)) > (200, 200, 200) and image.getpixel((60, 230)) < (50, 50, 50)
