"""The basics of all pictures: settings of matplotlib, colours, figures, thumbnails."""

from collections.abc import Sequence, Sized
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from device.model import transform

matplotlib.rcParams.update(
    {
        "figure.dpi": 100,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.titlesize": 11,
        "figure.constrained_layout.use": True,
    }
)
COLOURS = ("#3b6fb6", "#d1792c", "#4b9a5c", "#b24a57", "#7d62a8", "#8a6f4d", "#c46aa0", "#6d7278", "#9a9a2e", "#2f9aa8")


def new(*args: Any, **kwargs: Any) -> tuple[Figure, Any]:
    """Figure and axes of plt.subplots(*args, **kwargs). pyplot does not draw this figure again at the end of a cell."""
    figure, axes = plt.subplots(*args, **kwargs)
    plt.close(figure)
    return figure, axes


def cycle(names: Sized) -> list[str]:
    """A colour for each name; colours repeat after ten names."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]


def confusion(axis: Axes, counts: np.ndarray | Sequence[Sequence[int]], classes: Sequence[str]) -> None:
    """Draws the confusion matrix of the held-out images. counts: integers (truth, prediction), classes x classes."""
    counts = np.asarray(counts)
    axis.imshow(counts / np.maximum(counts.sum(1, keepdims=True), 1), cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        share = counts[row, column] / max(counts[row].sum(), 1)
        axis.text(
            column,
            row,
            counts[row, column],
            ha="center",
            va="center",
            color="white" if share > 0.6 else "black",
            fontsize=10 if len(classes) < 8 else 7,
        )
    axis.set(title="Held-out episodes: confusion (images)", xlabel="predicted", ylabel="truth")
    axis.set_xticks(range(len(classes)), classes, rotation=0 if len(classes) < 4 else 60)
    axis.set_yticks(range(len(classes)), classes)


def thumbnail(data: bytes) -> Image.Image:
    """The RGB image of an encoded photograph, upright, at most 240 x 240 pixels. Raises transform.decode's errors."""
    image = transform.rgb(transform.upright(transform.decode(data)))
    image.thumbnail((240, 240))
    return image
