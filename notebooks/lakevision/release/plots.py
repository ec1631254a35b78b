"""The pictures of 04_deploy and 05_score: parity, gate and ledger; predictions on new photographs."""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.ticker import MaxNLocator

from lakevision.platform import figures
from lakevision.platform.figures import COLOURS
from lakevision.release import parity

GOOD, UNSURE, BAD = "#3c8d53", "#c98a1b", "#b9423f"
TABLE_LINES = 14  # lines of text that a table has room for


@dataclass
class Table:
    """A table to be drawn. rows: texts; widths: of the columns, 1 in all; colours: of each row's first cell; letters:
    in a line over all columns.
    """

    title: str
    columns: Sequence[str]
    widths: Sequence[float]
    rows: list[tuple]
    colours: list[str]
    letters: int = 140


def paths(
    agreed: parity.Parity, checks: pd.DataFrame, history: pd.DataFrame, title: str, tolerance: float, shown: int = 6
) -> Figure:
    """Draws the photographs with the largest differences, all differences, the gate and the ledger.

    checks: of gate.Decision.table(); history: rows of `promotions`, oldest first; tolerance: deploy.parity_tolerance.
    """
    figure = plt.figure(figsize=(15, 11))
    plt.close(figure)
    grid = figure.add_gridspec(3, 2 * shown, height_ratios=(0.9, 1.25, 1.5))
    _photographs(figure, grid, agreed, tolerance, shown)
    _differences(figure.add_subplot(grid[1, :]), agreed, tolerance)
    _draw_table(figure.add_subplot(grid[2, :7]), _gate(checks))
    _draw_table(figure.add_subplot(grid[2, 7:]), _ledger(history.tail(len(checks))))
    figure.suptitle(title)
    return figure


def _gate(checks: pd.DataFrame) -> Table:
    return Table(
        f"The gate: {int(checks['passed'].sum())} of {len(checks)} passed",
        ("check", "found", "wanted"),
        (0.3, 0.39, 0.31),
        [(row.check, row.found, row.wanted) for row in checks.itertuples()],
        [GOOD if row.passed else BAD for row in checks.itertuples()],
    )


def _ledger(history: pd.DataFrame) -> Table:
    latest = list(history.itertuples())[::-1]
    became = ["held back" if not row.promoted else "forced" if row.forced else "champion" for row in latest]
    return Table(
        "The ledger, newest first",
        ("UTC", "version", "became", "why"),
        (0.19, 0.11, 0.16, 0.54),
        [
            (f"{row.decided_at:%d %b %H:%M}", row.version, outcome, f"{row.action}: {row.reason}")
            for row, outcome in zip(latest, became, strict=True)
        ],
        [{"champion": GOOD, "forced": UNSURE, "held back": BAD}[outcome] for outcome in became],
        letters=100,
    )


def worst(agreed: parity.Parity, tolerance: float, shown: int) -> list[tuple[int, str]]:
    """[(index of an image, path)] of the images to show, `shown` at most.

    First those on which a path that must agree does not, the largest difference first; then those on which int8 is
    furthest from Keras.
    """
    exact = [path for path in parity.EXACT if path in agreed.scores]
    apart = np.array([agreed.apart(path) for path in exact])
    broken = [index for index in np.argsort(-apart.max(axis=0), kind="stable") if apart[:, index].max() > tolerance]
    rounded = agreed.apart(parity.VARIANTS["int8"])
    by_int8 = np.argsort(-np.where(np.isfinite(rounded), rounded, -1), kind="stable")
    others = [index for index in by_int8 if index not in broken]
    chosen = [(index, exact[int(apart[:, index].argmax())]) for index in broken]
    return [*chosen, *((index, parity.VARIANTS["int8"]) for index in others)][:shown]


def _photographs(figure: Figure, grid: GridSpec, agreed: parity.Parity, tolerance: float, shown: int) -> None:
    for column, (index, path) in enumerate(worst(agreed, tolerance, shown)):
        axis = figure.add_subplot(grid[0, 2 * column : 2 * column + 2])
        axis.axis("off")
        reference, other = (agreed.scores[name][index] for name in (parity.REFERENCE, path))
        if reference is None and other is None:
            axis.set_title(f"{agreed.names[index]}\nrefused by all", fontsize=8)
            continue
        if reference is not None:
            axis.imshow(figures.thumbnail(agreed.images[index]))
        texts = ["refused" if scores is None else f"{scores[-1]:.3f}" for scores in (reference, other)]
        axis.set_title(
            f"{agreed.names[index]}\nP({agreed.classes[-1]}): Keras {texts[0]}\n{path} {texts[1]}",
            fontsize=8,
            color="black" if path == parity.VARIANTS["int8"] else BAD,
        )


def _differences(axis: Axes, agreed: parity.Parity, tolerance: float) -> None:
    # Paths that agree to the bit lie on top of each other: different sizes keep all of them visible.
    others, sizes = [path for path in agreed.scores if path != parity.REFERENCE], (150, 80, 26, 30, 24, 24)
    for colour, marker, size, path in zip(COLOURS, "oos^x+", sizes, others, strict=False):
        apart = agreed.apart(path)
        finite = np.isfinite(apart)
        hollow: dict[str, Any] = {"facecolor": "none", "edgecolor": colour}
        axis.scatter(
            np.flatnonzero(finite),
            np.maximum(apart[finite], 1e-9),
            s=size,
            marker=marker,
            label=path,
            linewidth=1,
            **(hollow if size > 50 else {"color": colour}),
        )
        if not finite.all():
            axis.scatter(
                np.flatnonzero(~finite),
                np.ones((~finite).sum()),
                s=60,
                marker="*",
                color=BAD,
                label=f"{path}: one refuses, the other does not",
            )
    hard = sum(name in parity.HARD for name in agreed.names)
    axis.axvspan(-0.5, hard - 0.5, color="#eef1f4", zorder=0)
    axis.text(hard / 2 - 0.5, 2.0, "hard on purpose", ha="center", fontsize=8)
    axis.axhline(tolerance, color="#999999", linewidth=0.8, linestyle="--")
    axis.set(
        title=f"Largest difference from Keras' probabilities (dashed: {tolerance:g}, the tolerance of float32)",
        xlabel="image, in the order of the comparison",
        ylabel="probability (log scale; 1e-9 and less at 1e-9)",
        yscale="log",
        ylim=(5e-10, 6),
        xlim=(-0.5, len(agreed.images) - 0.5),
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize=8, ncol=6, loc="lower center", bbox_to_anchor=(0.5, -0.3))


def _draw_table(axis: Axes, content: Table) -> None:
    # Rows are as tall as their text; as many are shown as fit into TABLE_LINES.
    axis.axis("off")
    axis.set_title(content.title, loc="left")
    if not content.rows:
        return
    lines = [
        [
            textwrap.wrap(str(cell), int(content.letters * width), max_lines=3, placeholder=" ...")
            for cell, width in zip(row, content.widths, strict=True)
        ]
        for row in content.rows
    ]
    heights = [max(map(len, row)) for row in lines]
    kept = max(1, sum(np.cumsum(heights) <= TABLE_LINES))
    table = axis.table(
        [["\n".join(cell) for cell in row] for row in lines[:kept]],
        colLabels=content.columns,
        colWidths=content.widths,
        loc="upper left",
        cellLoc="left",
        edges="horizontal",
    )
    table.auto_set_font_size(False)
    table.set_fontsize(7.5)
    table.scale(1, 1.25)
    line = table[0, 0].get_height()
    for number, (colour, height) in enumerate(zip(content.colours[:kept], heights, strict=False), 1):
        for column in range(len(content.columns)):
            table[number, column].set_height(line * (0.25 + 0.75 * height))
        table[number, 0].get_text().set_color(colour)
        table[number, 0].get_text().set_fontweight("bold")


def predictions(frame: pd.DataFrame, photographs: list[tuple[bytes, str]], title: str) -> Figure:
    """Draws predictions by hour, the distribution of probabilities, and the least certain photographs.

    frame: captured_at, device, label, probability, error; photographs: (bytes, caption).
    """
    shown = max(6, len(photographs))
    figure = plt.figure(figsize=(14, 6.6))
    plt.close(figure)
    grid = figure.add_gridspec(2, shown, height_ratios=(1.25, 1))
    hours, certainty = figure.add_subplot(grid[0, : shown // 2]), figure.add_subplot(grid[0, shown // 2 :])
    labels, bottom = sorted(frame["label"].dropna().unique()), np.zeros(24)
    for colour, label in zip(figures.cycle(labels), labels, strict=True):
        rows = frame[frame["label"] == label]
        counts = np.bincount(rows["captured_at"].dt.hour, minlength=24)
        hours.bar(range(24), counts, bottom=bottom, width=0.85, color=colour, label=label)
        bottom += counts
        certainty.hist(
            rows["probability"], bins=np.linspace(0, 1, 41), histtype="step", linewidth=1.6, color=colour, label=label
        )
    failed = int(frame["error"].notna().sum())
    hours.set(
        title="Predictions by hour of capture",
        xlabel="hour of capture (UTC)",
        ylabel="photographs",
        xticks=range(0, 24, 3),
    )
    certainty.set(
        title="How certain the model was" + (f" ({failed} could not be scored)" if failed else ""),
        xlabel="probability of the predicted label (0 to 1)",
        ylabel="photographs (log scale)",
        yscale="log",
        xlim=(0, 1),
    )
    if labels:
        hours.legend(frameon=False, fontsize=8)
        certainty.legend(frameon=False, fontsize=8, loc="upper left")
    else:
        hours.text(0.5, 0.5, "nothing has been scored", transform=hours.transAxes, ha="center")
    for column, (data, caption) in enumerate(photographs):
        axis = figure.add_subplot(grid[1, column])
        axis.imshow(figures.thumbnail(data))
        axis.set_title(f"least certain: {caption}" if column == 0 else caption, fontsize=8)
        axis.axis("off")
    figure.suptitle(title)
    return figure
