"""The pictures of 04_deploy and 05_score: paths side by side with the gate and the ledger, and what was said of new photographs."""

import textwrap

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import MaxNLocator

from lakevision.platform import figures
from lakevision.platform.figures import COLOURS
from lakevision.release import parity

GOOD, BAD = "#3c8d53", "#b9423f"


def paths(agreed, checks, history, title, tolerance, shown=6):
    """agreed: parity.Parity; tolerance: deploy.parity_tolerance; checks: DataFrame of gate.Decision.table(); history: rows of `promotions`, oldest first."""
    figure = plt.figure(figsize=(15, 11))
    plt.close(figure)
    grid = figure.add_gridspec(3, 2 * shown, height_ratios=(0.9, 1.25, 1.5))
    _photographs(figure, grid, agreed, tolerance, shown)
    _differences(figure.add_subplot(grid[1, :]), agreed, tolerance)
    _table(
        figure.add_subplot(grid[2, :7]),
        [(row.check, row.found, row.wanted) for row in checks.itertuples()],
        ("check", "found", "wanted"),
        (0.3, 0.39, 0.31),
        f"The gate: {int(checks['passed'].sum())} of {len(checks)} passed",
        [GOOD if row.passed else BAD for row in checks.itertuples()],
    )
    latest = list(history.tail(len(checks)).itertuples())[::-1]
    rows = [
        (
            f"{row.decided_at:%d %b %H:%M}",
            row.version,
            "forced" if row.promoted and row.forced else "champion" if row.promoted else "held back",
            f"{row.action}: {row.reason}",
        )
        for row in latest
    ]
    _table(
        figure.add_subplot(grid[2, 7:]),
        rows,
        ("UTC", "version", "became", "why"),
        (0.19, 0.11, 0.16, 0.54),
        "The ledger, newest first",
        [GOOD if row.promoted and not row.forced else "#c98a1b" if row.promoted else BAD for row in latest],
        100,
    )
    figure.suptitle(title)
    return figure


def worst(agreed, tolerance, shown):
    """[(place of an image, path)]: where a path that must agree does not, furthest first; then where int8 is furthest from Keras."""
    exact = [path for path in parity.EXACT if path in agreed.scores]
    apart = np.array([agreed.apart(path) for path in exact])
    broken = [place for place in np.argsort(-apart.max(axis=0), kind="stable") if apart[:, place].max() > tolerance]
    rounded = agreed.apart(parity.VARIANTS["int8"])
    others = [
        place
        for place in np.argsort(-np.where(np.isfinite(rounded), rounded, -1), kind="stable")
        if place not in broken
    ]
    return [(place, exact[int(apart[:, place].argmax())]) for place in broken][:shown] + [
        (place, parity.VARIANTS["int8"]) for place in others
    ][: max(0, shown - len(broken))]


def _photographs(figure, grid, agreed, tolerance, shown):
    for place, (index, path) in enumerate(worst(agreed, tolerance, shown)):
        axis = figure.add_subplot(grid[0, 2 * place : 2 * place + 2])
        axis.axis("off")
        said = [agreed.scores[which][index] for which in (parity.REFERENCE, path)]
        if all(scores is None for scores in said):
            axis.set_title(f"{agreed.names[index]}\nrefused by all", fontsize=8)
            continue
        if said[0] is not None:
            axis.imshow(figures.thumbnail(agreed.images[index]))
        told = ["refused" if scores is None else f"{scores[-1]:.3f}" for scores in said]
        axis.set_title(
            f"{agreed.names[index]}\nP({agreed.classes[-1]}): Keras {told[0]}\n{path} {told[1]}",
            fontsize=8,
            color="black" if path == parity.VARIANTS["int8"] else BAD,
        )


def _differences(axis, agreed, tolerance):
    # Paths that agree to the bit lie on each other: the sizes let all of them be seen.
    for colour, marker, size, path in zip(
        COLOURS, "oos^x+", (150, 80, 26, 30, 24, 24), [path for path in agreed.scores if path != parity.REFERENCE]
    ):
        apart = agreed.apart(path)
        seen = np.isfinite(apart)
        axis.scatter(
            np.flatnonzero(seen),
            np.maximum(apart[seen], 1e-9),
            s=size,
            marker=marker,
            label=path,
            linewidth=1,
            **({"facecolor": "none", "edgecolor": colour} if size > 50 else {"color": colour}),
        )
        if not seen.all():
            axis.scatter(
                np.flatnonzero(~seen),
                np.ones((~seen).sum()),
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
        title=f"Largest difference from Keras' probabilities, by image and path (dashed: {tolerance:g}, what float32 may differ)",
        xlabel="image, in the order of the comparison",
        ylabel="probability (log scale; 1e-9 and less at 1e-9)",
        yscale="log",
        ylim=(5e-10, 6),
        xlim=(-0.5, len(agreed.images) - 0.5),
    )
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend(frameon=False, fontsize=8, ncol=6, loc="lower center", bbox_to_anchor=(0.5, -0.3))


def _table(axis, rows, columns, widths, title, colours, letters=140, most=14):
    # Rows as tall as their text, as many as fit into `most` lines.
    axis.axis("off")
    axis.set_title(title, loc="left")
    if not rows:
        return
    lines = [
        [
            textwrap.wrap(str(cell), int(letters * width), max_lines=3, placeholder=" ...")
            for cell, width in zip(row, widths)
        ]
        for row in rows
    ]
    tall = [max(map(len, row)) for row in lines]
    kept = max(1, sum(np.cumsum(tall) <= most))
    shown, tall, colours = [["\n".join(cell) for cell in row] for row in lines[:kept]], tall[:kept], colours[:kept]
    table = axis.table(shown, colLabels=columns, colWidths=widths, loc="upper left", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(7.5)
    table.scale(1, 1.25)
    line = table[0, 0].get_height()
    for number, colour in enumerate(colours, 1):
        for column in range(len(columns)):
            table[number, column].set_height(line * (0.25 + 0.75 * tall[number - 1]))
        table[number, 0].get_text().set_color(colour)
        table[number, 0].get_text().set_weight("bold")


def predictions(frame, photographs, title):
    """frame: DataFrame of captured_at, device, label, probability, error; photographs: list of (bytes, caption)."""
    shown = max(6, len(photographs))
    figure = plt.figure(figsize=(14, 6.6))
    plt.close(figure)
    grid = figure.add_gridspec(2, shown, height_ratios=(1.25, 1))
    hours, sure = figure.add_subplot(grid[0, : shown // 2]), figure.add_subplot(grid[0, shown // 2 :])
    labels, bottom = sorted(frame["label"].dropna().unique()), np.zeros(24)
    for colour, label in zip(figures.cycle(labels), labels):
        rows = frame[frame["label"] == label]
        counts = np.bincount(rows["captured_at"].dt.hour, minlength=24)
        hours.bar(range(24), counts, bottom=bottom, width=0.85, color=colour, label=label)
        bottom += counts
        sure.hist(
            rows["probability"], bins=np.linspace(0, 1, 41), histtype="step", linewidth=1.6, color=colour, label=label
        )
    failed = int(frame["error"].notna().sum())
    hours.set(
        title="What was said, by hour of capture",
        xlabel="hour of capture (UTC)",
        ylabel="photographs",
        xticks=range(0, 24, 3),
    )
    sure.set(
        title="How sure the model was" + (f" ({failed} could not be scored)" if failed else ""),
        xlabel="probability of the label it gave (0 to 1)",
        ylabel="photographs (log scale)",
        yscale="log",
        xlim=(0, 1),
    )
    if labels:
        hours.legend(frameon=False, fontsize=8)
        sure.legend(frameon=False, fontsize=8, loc="upper left")
    else:
        hours.text(0.5, 0.5, "nothing has been scored", transform=hours.transAxes, ha="center")
    for place, (data, caption) in enumerate(photographs):
        axis = figure.add_subplot(grid[1, place])
        axis.imshow(figures.thumbnail(data))
        axis.set_title(f"least sure: {caption}" if place == 0 else caption, fontsize=8)
        axis.axis("off")
    figure.suptitle(title)
    return figure
