"""The pictures at the end of each notebook: matplotlib figures with titles, axes and units."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import matplotlib
import numpy as np

from lakevision.platform import figures

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def contact_sheet(photographs: list[tuple[bytes, str]], title: str, columns: int = 6) -> Figure:
    """Photographs, as (bytes, caption), in rows."""
    rows = max(1, -(-len(photographs) // columns))
    figure, axes = figures.new(rows, columns, figsize=(2 * columns, 2.25 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, (data, caption) in zip(axes.flat, photographs, strict=False):
        axis.imshow(figures.thumbnail(data))
        axis.set_title(caption, fontsize=8)
    figure.suptitle(title)
    return figure


def by_hour(images: pd.DataFrame, title: str) -> Figure:
    """Photographs and brightness by hour. images: captured_at, label, brightness (0 to 1), device."""
    figure, (left, right) = figures.new(1, 2, figsize=(12, 3.8))
    labels = sorted(images["label"].fillna("(none)").unique())
    hours = images["captured_at"].dt.hour
    bottom = np.zeros(24)
    for colour, label in zip(figures.cycle(labels), labels, strict=True):
        counts = np.bincount(hours[images["label"].fillna("(none)") == label], minlength=24)
        left.bar(range(24), counts, bottom=bottom, color=colour, label=label, width=0.85)
        bottom += counts
    left.set(
        title="Photographs by hour and label",
        xlabel="hour of capture (UTC)",
        ylabel="photographs",
        xticks=range(0, 24, 3),
    )
    left.legend(frameon=False, fontsize=8, ncol=2 if len(labels) > 5 else 1)
    cameras = sorted(images["device"].unique())[:10]
    for colour, camera in zip(figures.cycle(cameras), cameras, strict=True):
        rows = images["device"] == camera
        right.scatter(
            hours[rows] + images["captured_at"].dt.minute[rows] / 60,
            images["brightness"][rows],
            s=9,
            alpha=0.6,
            color=colour,
            label=camera,
        )
    right.set(
        title="Brightness by hour and camera",
        xlabel="hour of capture (UTC)",
        ylabel="mean luma (0 to 1)",
        xticks=range(0, 25, 3),
        xlim=(0, 24),
        ylim=(0, 1),
    )
    right.legend(frameon=False, fontsize=8)
    figure.suptitle(title)
    return figure


def training(history: list[dict[str, float]], counts: Any, classes: list[str], title: str) -> Figure:
    """Loss and accuracy by epoch, and the confusion matrix (counts: rows are the truth)."""
    figure, (loss, accuracy, matrix) = figures.new(1, 3, figsize=(14, 4))
    epochs = range(1, len(history) + 1)
    for axis, key, unit in ((loss, "loss", "cross-entropy (nats)"), (accuracy, "accuracy", "share correct (0 to 1)")):
        axis.plot(epochs, [epoch[key] for epoch in history], color=figures.COLOURS[0], label="train (augmented)")
        axis.plot(epochs, [epoch[f"val_{key}"] for epoch in history], color=figures.COLOURS[1], label="validation")
        axis.set(title=key.capitalize(), xlabel="epoch", ylabel=unit, ylim=(0, 1.02 if key == "accuracy" else None))
        axis.legend(frameon=False, fontsize=8)
    figures.confusion(matrix, counts, classes)
    figure.suptitle(title)
    return figure


def search(trials: list[dict[str, Any]], title: str) -> Figure:
    """The course of a search, and its values against its losses. trials: of training.search.Search."""
    figure, (left, right) = figures.new(1, 2, figsize=(13, 4.2), width_ratios=(1, 1.25))
    good, failed = ([trial for trial in trials if trial["status"] == status] for status in ("ok", "fail"))
    for resumed, marker, label in ((False, "o", "trial"), (True, "D", "resumed from a search that was killed")):
        rows = [trial for trial in good if bool(trial.get("resumed")) == resumed]
        if rows:
            left.scatter(
                [trial["number"] + 1 for trial in rows],
                [trial["loss"] for trial in rows],
                marker=marker,
                zorder=3,
                label=label,
                color=figures.COLOURS[0] if not resumed else "white",
                edgecolor=figures.COLOURS[0],
            )
    left.step(
        [trial["number"] + 1 for trial in good],
        np.minimum.accumulate([trial["loss"] for trial in good]),
        where="post",
        color=figures.COLOURS[1],
        label="best so far",
    )
    if failed:
        left.scatter(
            [trial["number"] + 1 for trial in failed],
            [0.03] * len(failed),
            marker="x",
            color=figures.COLOURS[3],
            transform=left.get_xaxis_transform(),
            label="failed (no loss)",
            clip_on=False,
        )
    left.set(
        title="Validation loss by trial",
        xlabel="trial, in the order of suggestion",
        ylabel="cross-entropy (nats)",
        xlim=(0.5, len(trials) + 0.5),
        xticks=range(1, len(trials) + 1, max(1, len(trials) // 12)),
    )
    left.margins(y=0.12)
    left.legend(frameon=False, fontsize=8)
    _parallel(figure, right, good, failed)
    figure.suptitle(title)
    return figure


def _scale(axis: Axes, place: int, name: str, values: np.ndarray) -> tuple[float, float]:
    """Draws the scale of one value at x = place. Returns (low, span) of its values, logarithmic for the rate."""
    scaled = np.log10(values) if name == "learning_rate" else values
    low, span = scaled.min(), max(np.ptp(scaled), 1e-12)
    axis.axvline(place, color="#999999", linewidth=0.8, zorder=1)
    box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0.5}
    for tick in sorted(set(values)) if name == "width" else np.unique([values.min(), values.max()]):
        height = ((np.log10(tick) if name == "learning_rate" else tick) - low) / span
        axis.text(place + 0.03, height, f"{tick:.3g}", fontsize=8, va="bottom", zorder=4, bbox=box)
    return low, span


def _parallel(figure: Figure, axis: Axes, good: list[dict[str, Any]], failed: list[dict[str, Any]]) -> None:
    """Parallel coordinates: a line for each trial through its searched values and its loss, coloured by loss.

    The lines of failed trials are dashed and end before the loss.
    """
    names = (
        ("learning_rate", "learning rate\n(log scale)"),
        ("dropout", "dropout\n(share)"),
        ("width", "width\n(channels)"),
        ("loss", "validation loss\n(nats)"),
    )
    limits = {}
    for place, (name, _) in enumerate(names):
        values = np.array([trial[name] for trial in (good if name == "loss" else good + failed)], float)
        limits[name] = _scale(axis, place, name, values)
    colours = matplotlib.cm.ScalarMappable(
        matplotlib.colors.Normalize(*np.array(sorted(trial["loss"] for trial in good))[[0, -1]]), "viridis_r"
    )
    for trial in failed + sorted(good, key=lambda trial: -trial["loss"]):
        used = names if trial["status"] == "ok" else names[:-1]
        heights = [
            ((np.log10(trial[name]) if name == "learning_rate" else trial[name]) - limits[name][0]) / limits[name][1]
            for name, _ in used
        ]
        style: dict[str, Any] = (
            {"color": colours.to_rgba(trial["loss"]), "linewidth": 1.8}
            if trial["status"] == "ok"
            else {"color": figures.COLOURS[3], "linewidth": 1, "linestyle": "--"}
        )
        axis.plot(range(len(used)), heights, zorder=2, **style)
    axis.set(
        title="Searched values and their losses" + (" (dashed: failed)" if failed else ""),
        xlim=(-0.1, len(names) - 0.65),
        ylim=(-0.06, 1.1),
        yticks=[],
        xlabel="searched value, each on its own scale; the last is the outcome",
    )
    axis.set_xticks(range(len(names)), [label for _, label in names])
    axis.spines["left"].set_visible(False)
    figure.colorbar(colours, ax=axis, label="validation loss: cross-entropy (nats)")
