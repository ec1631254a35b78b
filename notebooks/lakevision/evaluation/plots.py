"""The plots of the evaluation.

Each plot is a function that draws on an axis. small(), overview() and causes() place plots on figures.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from lakevision.dataset import object_region
from lakevision.evaluation import metrics
from lakevision.platform.figures import COLOURS, confusion, new

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    from lakevision.evaluation.confounding import Checked
    from lakevision.evaluation.results import Evaluation, Material
    from lakevision.platform.config import Config

MODEL, OTHER, ALARM, CHANCE, GREY = COLOURS[0], COLOURS[1], COLOURS[3], "#9aa3ad", "#6d7278"


def small(draw: Callable[..., None], *arguments: Any, height: float = 3.6) -> Figure:
    """A figure 5.4 inches wide with one plot: draw(axis, *arguments). height: inches."""
    figure, axis = new(figsize=(5.4, height))
    draw(axis, *arguments)
    return figure


def overview(material: Material, evaluation: Evaluation) -> Figure:
    """The main plots on one figure, for the notebook and the run's page."""
    figure, axes = new(2, 3, figsize=(15, 8))
    model_and_baselines(axes[0, 0], material)
    confusion(axes[0, 1], evaluation.confusion, material.classes)
    slices(axes[0, 2], material)
    roc(axes[1, 0], material)
    precision_recall(axes[1, 1], material)
    reliability(axes[1, 2], material)
    figure.suptitle(
        f"{evaluation.verdict}: accuracy {material.evidence.accuracy} on {len(material.test)} held-out images of "
        f"{material.evidence.accuracy.episodes} episodes, metadata alone {evaluation.metadata_baseline:.3f}"
    )
    return figure


def causes(material: Material, cfg: Config) -> Figure:
    """Plots of confounders, of the mean occlusion map and, for two classes, of the cost by threshold on one figure."""
    figure, axes = new(1, 3 if len(material.classes) == 2 else 2, figsize=(15, 4.4))
    explained(axes[0], material.checked)
    looked_at(axes[1], material)
    if len(material.classes) == 2:
        cost(axes[2], material, cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost)
    figure.suptitle(f"Shortcuts and costs, {len(material.test)} held-out images")
    return figure


def worst(material: Material, columns: int = 4) -> Figure:
    """The images whose true class is least probable, each beside its occlusion map."""
    rows = max(1, -(-len(material.shown) // columns))
    figure, axes = new(rows, columns, figsize=(15, 2.2 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, index, heat in zip(axes.flat, material.shown, material.falls, strict=False):
        predicted = material.probabilities[index].argmax()
        axis.imshow(Image.open(io.BytesIO(tile(material.test.pixels[index], heat))))
        axis.set_title(
            f"{'right' if material.right[index] else 'WRONG'}: predicted {material.classes[predicted]} "
            f"({material.probabilities[index, predicted]:.2f}), is {material.classes[material.test.targets[index]]}",
            fontsize=8,
        )
    figure.suptitle(
        "Least probable true class first; right of each photograph, lighter parts matter more to the prediction"
    )
    return figure


def model_and_baselines(axis: Axes, material: Material) -> None:
    """Accuracy of the model and of the baselines that cannot see the object, with 95 % intervals."""
    evidence = material.evidence
    estimates = [
        ("model", evidence.accuracy, MODEL),
        ("metadata only", evidence.metadata, OTHER),
        ("nearest in time", evidence.nearest, OTHER),
        ("surroundings only", evidence.context, OTHER),
    ]
    bars = [(name, estimate, colour) for name, estimate, colour in estimates if estimate][::-1]
    heights = np.arange(len(bars))
    axis.barh(heights, [estimate.value for _, estimate, _ in bars], color=[colour for *_, colour in bars], height=0.55)
    for height, (_, estimate, _) in zip(heights, bars, strict=True):
        axis.plot((estimate.low, estimate.high), (height, height), color="#1d2733", linewidth=1.4)
        axis.text(0.015, height + 0.04, f"{estimate.value:.3f}", va="bottom", color="white", fontsize=8)
    axis.axvline(evidence.majority, color=CHANCE, linestyle="--", linewidth=1)
    axis.text(
        evidence.majority,
        len(bars) - 0.45,
        " most frequent class ",
        fontsize=8,
        color=GREY,
        va="bottom",
        ha="left" if evidence.majority < 0.6 else "right",
    )
    axis.set(
        title="The model and the baselines",
        xlabel="accuracy on held-out episodes, 95 % interval",
        xlim=(0, 1.02),
        ylim=(-0.6, len(bars) - 0.1),
    )
    axis.set_yticks(heights, [name for name, *_ in bars])


def roc(axis: Axes, material: Material) -> None:
    """ROC curves, at most as many as there are COLOURS."""
    curves = metrics.curves(material.probabilities, material.test.targets, material.classes)
    for colour, curve in zip(COLOURS, curves, strict=False):
        axis.plot(*curve["roc"], color=colour, label=f"{curve['class']}: area {curve['area']:.3f}")
    axis.plot((0, 1), (0, 1), color=CHANCE, linestyle="--", linewidth=1)
    axis.set(
        title="ROC",
        xlabel="false positive rate (share of the others)",
        ylabel="recall (share of the class)",
        xlim=(-0.02, 1),
        ylim=(0, 1.02),
    )
    _legend(axis, material, "lower right")


def precision_recall(axis: Axes, material: Material) -> None:
    """Precision-recall curves, at most as many as there are COLOURS."""
    curves = metrics.curves(material.probabilities, material.test.targets, material.classes)
    for colour, curve in zip(COLOURS, curves, strict=False):
        axis.plot(*curve["pr"], color=colour, label=f"{curve['class']}: average {curve['average_precision']:.3f}")
    axis.set(
        title="Precision and recall",
        xlabel="recall (share of the class)",
        ylabel="precision (share of predictions that are right)",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    _legend(axis, material, "lower left")


def _legend(axis: Axes, material: Material, location: str) -> None:
    axis.legend(
        frameon=False,
        fontsize=8 if len(material.classes) < 5 else 6.5,
        ncol=1 if len(material.classes) < 5 else 2,
        loc=location,
    )


def reliability(axis: Axes, material: Material) -> None:
    """Reliability diagram: accuracy by confidence, with the number of images of each bin."""
    bins = metrics.calibration(material.probabilities, material.test.targets)
    error = metrics.calibration_error(material.probabilities, material.test.targets)
    axis.plot((0, 1), (0, 1), color=CHANCE, linestyle="--", linewidth=1)
    axis.plot(bins["confidence"], bins["accuracy"], color=MODEL, linewidth=1)
    axis.scatter(bins["confidence"], bins["accuracy"], s=10 + 120 * bins["images"] / bins["images"].sum(), color=MODEL)
    for row in bins.itertuples():
        axis.annotate(
            row.images,
            (row.confidence, row.accuracy),
            textcoords="offset points",
            xytext=(0, -13),
            ha="center",
            fontsize=7,
            color=GREY,
        )
    axis.set(
        title=f"Calibration: expected error {error:.3f}",
        xlabel="probability of the predicted class",
        ylabel="share right (images in grey)",
        ylim=(-0.08, 1.05),
        xlim=(1 / len(material.classes) - 0.05, 1.02),
    )


def cost(axis: Axes, material: Material, miss: float, false_alarm: float) -> None:
    """Cost by threshold: the validation split determines the cheapest threshold, and the test split shows its cost."""
    test = (material.probabilities, material.test.targets)
    for colour, name, (scores, targets) in (
        (OTHER, "validation (chosen on)", material.validation),
        (MODEL, "test", test),
    ):
        thresholds, costs = metrics.costs(scores, targets, miss, false_alarm)
        axis.plot(thresholds, costs, color=colour, label=name)
    best = metrics.cheapest(*metrics.costs(*material.validation, miss, false_alarm))
    axis.axvline(best, color=CHANCE, linestyle="--", linewidth=1)
    axis.set(
        title=f"Threshold: {best:.2f} is cheapest",
        xlabel=f"probability from which {material.classes[-1]!r} is predicted",
        ylabel=f"cost per image (miss {miss:g}, false alarm {false_alarm:g})",
        xlim=(0, 1),
        ylim=(0, None),
    )
    axis.legend(frameon=False, fontsize=8)


def slices(axis: Axes, material: Material, most: int = 10) -> None:
    """Accuracy by slice, worst first."""
    table = material.slices.head(most)[::-1]
    heights = np.arange(len(table))
    axis.hlines(heights, table["low"], table["high"], color=CHANCE, linewidth=2)
    axis.scatter(table["accuracy"], heights, color=MODEL, zorder=3, s=22)
    names = [f"{row.slice}: {row.value[:28]} ({row.images})" for row in table.itertuples()]
    axis.set_yticks(heights, names, fontsize=8)
    axis.axvline(material.evidence.accuracy.value, color=CHANCE, linestyle="--", linewidth=1)
    left = table["low"].min() - 0.03 if len(table) else 0
    axis.set(title="Slices, worst first", xlabel="accuracy, 95 % interval (images in brackets)", xlim=(left, 1.02))


def explained(axis: Axes, checked: Checked, most: int = 8) -> None:
    """Share of the label that each feature explains, the largest first."""
    findings = checked.findings[:most][::-1]
    colours = [ALARM if finding.alarm else MODEL for finding in findings]
    axis.barh(range(len(findings)), [finding.explained for finding in findings], color=colours, height=0.6)
    axis.set_yticks(range(len(findings)), [finding.feature[:32] for finding in findings], fontsize=8)
    axis.set(
        title="Confounders (red: alarm)", xlabel="share of the label explained beyond chance (0 to 1)", xlim=(0, 1.02)
    )


def looked_at(axis: Axes, material: Material) -> None:
    """Mean occlusion map of the images shown, over their mean picture, and the region that the controls hid."""
    size = material.test.pixels.shape[1]
    axis.imshow(
        material.test.pixels[material.shown if len(material.shown) else slice(None)].mean(0).astype(np.uint8),
        extent=(0, 1, 1, 0),
    )
    heat = np.clip(material.falls.mean(0), 0, None) if len(material.falls) else np.zeros((2, 2))
    axis.imshow(
        heat,
        cmap="magma",
        alpha=0.55,
        extent=(0, 1, 1, 0),
        interpolation="bilinear",
        vmin=0,
        vmax=max(0.05, heat.max()),
    )
    region = material.evidence.region
    if region:
        rows, columns = object_region.pixels_of(region, size)
        axis.add_patch(
            _rectangle(
                columns.start / size,
                rows.start / size,
                (columns.stop - columns.start) / size,
                (rows.stop - rows.start) / size,
            )
        )
    axis.set(
        title="Where the model looks" + (f"; box: region ({region.source})" if region else ""),
        xlabel="share of the width",
        ylabel="share of the height",
        xlim=(0, 1),
        ylim=(1, 0),
    )


def _rectangle(left: float, top: float, width: float, height: float) -> Rectangle:
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), width, height, fill=False, edgecolor="#7fd4ff", linewidth=2)


def tile(pixels: np.ndarray, heat: np.ndarray | None = None, size: int = 224) -> bytes:
    """PNG bytes of one picture at the model's resolution and, if heat is given, of its occlusion map beside it.

    pixels: (height, width, 3), 0..255; heat: float (GRID, GRID), one of occlusion.maps; size: pixels of each side.
    """
    image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8)).resize((size, size), Image.Resampling.BICUBIC)
    sheet = image
    if heat is not None:
        import matplotlib

        strength = np.clip(heat, 0, None) / max(0.05, heat.max())
        colours = (matplotlib.colormaps["magma"](strength)[..., :3] * 255).astype(np.uint8)
        over = Image.fromarray(colours).resize((size, size), Image.Resampling.BICUBIC)
        sheet = Image.new("RGB", (2 * size + 4, size), "white")
        sheet.paste(image, (0, 0))
        sheet.paste(Image.blend(image, over, 0.55), (size + 4, 0))
    out = io.BytesIO()
    sheet.save(out, "PNG")
    return out.getvalue()


def png(figure: Figure) -> bytes:
    """PNG bytes of a figure, for a page."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
