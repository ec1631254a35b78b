"""The pictures of the evaluation: one function for each, that draws on an axis; small() and overview() put them on figures."""

import io

import numpy as np
from PIL import Image

from lakevision.dataset import object_region
from lakevision.evaluation import metrics
from lakevision.platform.figures import COLOURS, confusion, new

MODEL, OTHER, ALARM, CHANCE, GREY = COLOURS[0], COLOURS[1], COLOURS[3], "#9aa3ad", "#6d7278"


def small(draw, *arguments, height=3.6):
    """A figure 5.4 inches wide with one plot: draw(axis, *arguments)."""
    figure, axis = new(figsize=(5.4, height))
    draw(axis, *arguments)
    return figure


def overview(material, evaluation):
    """The figures on one picture, for the notebook and the run's page."""
    figure, axes = new(2, 3, figsize=(15, 8))
    who_knows(axes[0, 0], material)
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


def causes(material, cfg):
    """What else tells the label, where the model looks and, for two classes, what a threshold costs: on one picture."""
    figure, axes = new(1, 3 if len(material.classes) == 2 else 2, figsize=(15, 4.4))
    explained(axes[0], material.checked)
    looked_at(axes[1], material)
    if len(material.classes) == 2:
        cost(axes[2], material, cfg.evaluation.miss_cost, cfg.evaluation.false_alarm_cost)
    figure.suptitle(f"Shortcuts and costs, {len(material.test)} held-out images")
    return figure


def worst(material, columns=4):
    """The answers whose truth was thought least likely, each beside its occlusion map."""
    rows = max(1, -(-len(material.shown) // columns))
    figure, axes = new(rows, columns, figsize=(15, 2.2 * rows + 0.4), squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, index, heat in zip(axes.flat, material.shown, material.falls):
        said = material.probabilities[index].argmax()
        axis.imshow(Image.open(io.BytesIO(tile(material.test.pixels[index], heat))))
        axis.set_title(
            f"{'right' if material.right[index] else 'WRONG'}: says {material.classes[said]} ({material.probabilities[index, said]:.2f}), "
            f"is {material.classes[material.test.targets[index]]}",
            fontsize=8,
        )
    figure.suptitle(
        "Least likely truths first; right of each picture, the lighter, the more the answer depends on that part"
    )
    return figure


def who_knows(axis, material):
    """Accuracy of the model beside what cannot see the object, with intervals."""
    evidence = material.evidence
    bars = [
        ("model", evidence.accuracy, MODEL),
        ("metadata only", evidence.metadata, OTHER),
        ("nearest in time", evidence.nearest, OTHER),
        ("surroundings only", evidence.context, OTHER),
    ]
    bars = [bar for bar in bars if bar[1]][::-1]
    places = np.arange(len(bars))
    axis.barh(places, [figure.value for _, figure, _ in bars], color=[colour for *_, colour in bars], height=0.55)
    for place, (_, figure, _) in zip(places, bars):
        axis.plot((figure.low, figure.high), (place, place), color="#1d2733", linewidth=1.4)
        axis.text(0.015, place + 0.04, f"{figure.value:.3f}", va="bottom", color="white", fontsize=8)
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
        title="Who knows the label?",
        xlabel="accuracy on held-out episodes, 95 % interval",
        xlim=(0, 1.02),
        ylim=(-0.6, len(bars) - 0.1),
    )
    axis.set_yticks(places, [name for name, *_ in bars])


def roc(axis, material):
    for colour, curve in zip(COLOURS, metrics.curves(material.probabilities, material.test.targets, material.classes)):
        axis.plot(*curve["roc"], color=colour, label=f"{curve['class']}: area {curve['area']:.3f}")
    axis.plot((0, 1), (0, 1), color=CHANCE, linestyle="--", linewidth=1)
    axis.set(
        title="ROC",
        xlabel="false alarms (share of the others)",
        ylabel="found (share of the class)",
        xlim=(-0.02, 1),
        ylim=(0, 1.02),
    )
    _legend(axis, material, "lower right")


def precision_recall(axis, material):
    for colour, curve in zip(COLOURS, metrics.curves(material.probabilities, material.test.targets, material.classes)):
        axis.plot(*curve["pr"], color=colour, label=f"{curve['class']}: average {curve['average_precision']:.3f}")
    axis.set(
        title="Precision and recall",
        xlabel="recall (share of the class found)",
        ylabel="precision (share of calls that are right)",
        xlim=(0, 1.02),
        ylim=(0, 1.02),
    )
    _legend(axis, material, "lower left")


def _legend(axis, material, place):
    axis.legend(
        frameon=False,
        fontsize=8 if len(material.classes) < 5 else 6.5,
        ncol=1 if len(material.classes) < 5 else 2,
        loc=place,
    )


def reliability(axis, material):
    bins = metrics.calibration(material.probabilities, material.test.targets)
    error = metrics.calibration_error(material.probabilities, material.test.targets)
    axis.plot((0, 1), (0, 1), color=CHANCE, linestyle="--", linewidth=1)
    axis.plot(bins["confidence"], bins["accuracy"], color=MODEL, linewidth=1)
    axis.scatter(bins["confidence"], bins["accuracy"], s=10 + 120 * bins["images"] / bins["images"].sum(), color=MODEL)
    for bin in bins.itertuples():
        axis.annotate(
            bin.images,
            (bin.confidence, bin.accuracy),
            textcoords="offset points",
            xytext=(0, -13),
            ha="center",
            fontsize=7,
            color=GREY,
        )
    axis.set(
        title=f"Calibration: expected error {error:.3f}",
        xlabel="probability of what it says",
        ylabel="share right (images in grey)",
        ylim=(-0.08, 1.05),
        xlim=(1 / len(material.classes) - 0.05, 1.02),
    )


def cost(axis, material, miss, false_alarm):
    """What each threshold costs; the choice is made on the validation side, and the test side shows what it is worth."""
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
        xlabel=f"probability from which {material.classes[-1]!r} is said",
        ylabel=f"cost an image (miss {miss:g}, false alarm {false_alarm:g})",
        xlim=(0, 1),
        ylim=(0, None),
    )
    axis.legend(frameon=False, fontsize=8)


def slices(axis, material, most=10):
    """Accuracy by slice, worst first."""
    table = material.slices.head(most)[::-1]
    places = np.arange(len(table))
    axis.hlines(places, table["low"], table["high"], color=CHANCE, linewidth=2)
    axis.scatter(table["accuracy"], places, color=MODEL, zorder=3, s=22)
    axis.set_yticks(places, [f"{row.slice}: {row.value[:28]} ({row.images})" for row in table.itertuples()], fontsize=8)
    axis.axvline(material.evidence.accuracy.value, color=CHANCE, linestyle="--", linewidth=1)
    left = table["low"].min() - 0.03 if len(table) else 0
    axis.set(title="Slices, worst first", xlabel="accuracy, 95 % interval (images in brackets)", xlim=(left, 1.02))


def explained(axis, checked, most=8):
    """How much of the label each circumstance explains."""
    findings = checked.findings[:most][::-1]
    colours = [ALARM if finding.alarm else MODEL for finding in findings]
    axis.barh(range(len(findings)), [finding.explained for finding in findings], color=colours, height=0.6)
    axis.set_yticks(range(len(findings)), [finding.feature[:32] for finding in findings], fontsize=8)
    axis.set(
        title="What else tells the label? (red: alarm)",
        xlabel="share of the label explained beyond chance (0 to 1)",
        xlim=(0, 1.02),
    )


def looked_at(axis, material):
    """Where hiding costs the model most, on average over the images shown, and the region that the controls hid."""
    side = material.test.pixels.shape[1]
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
        rows, columns = object_region.pixels_of(region, side)
        axis.add_patch(
            _rectangle(
                columns.start / side,
                rows.start / side,
                (columns.stop - columns.start) / side,
                (rows.stop - rows.start) / side,
            )
        )
    axis.set(
        title="Where the model looks" + (f"; box: region ({region.source})" if region else ""),
        xlabel="share of the width",
        ylabel="share of the height",
        xlim=(0, 1),
        ylim=(1, 0),
    )


def _rectangle(left, top, width, height):
    from matplotlib.patches import Rectangle

    return Rectangle((left, top), width, height, fill=False, edgecolor="#7fd4ff", linewidth=2)


def tile(pixels, heat=None, size=224):
    """PNG bytes of one picture as the model sees it, and beside it, where heat (GRID, GRID) is given, where hiding costs it most."""
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


def png(figure):
    """PNG bytes of a figure, for a page."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=120)
    return out.getvalue()
