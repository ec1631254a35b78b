"""What all pictures share: matplotlib's settings, the colours, and how a figure begins."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np

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


def new(*args, **kwargs):
    """A figure that pyplot does not also draw by itself at the end of a cell."""
    figure, axes = plt.subplots(*args, **kwargs)
    plt.close(figure)
    return figure, axes


def cycle(names):
    """A colour for each name."""
    return [COLOURS[index % len(COLOURS)] for index in range(len(names))]


def confusion(axis, counts, classes):
    """Draws a confusion matrix of the held-out images on an axis; counts: rows are the truth."""
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


def thumbnail(data):
    """The PIL image of some bytes, upright, 240 pixels at most."""
    image = transform.rgb(transform.upright(transform.decode(data)))
    image.thumbnail((240, 240))
    return image
