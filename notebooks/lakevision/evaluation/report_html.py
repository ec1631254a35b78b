"""The HTML elements of the report: escaped text, embedded images, tables, numbers and intervals."""

from __future__ import annotations

import base64
import html
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import pandas as pd

from lakevision.evaluation import plots

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); gap: 1rem;
  align-items: start }
.tiles { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 18rem), 1fr)); gap: 1rem }
.plots img { border: 0 } figure { margin: 0 } .tiles img { width: 100% }
figcaption { font-size: .85rem; color: #46535f; overflow-wrap: anywhere }
.wide { overflow-x: auto; margin-bottom: 1rem }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
p, li { max-width: 46rem } .quiet { color: #5b6773; font-size: .9rem }
"""
TEXT_COLUMNS = ("metric", "class", "slice", "of")  # columns of tables that are aligned to the left


def escape(text: object) -> str:
    """The text of an object with HTML's special characters escaped."""
    return html.escape(str(text))


def image(data: bytes, alt: str) -> str:
    """An img element that contains the PNG bytes. alt: the alternative text, not escaped yet."""
    return f'<img alt="{escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def plot(figure: Figure, alt: str) -> str:
    """An img element of a matplotlib figure."""
    return image(plots.png(figure), alt)


def tile(data: bytes, alt: str, caption: str) -> str:
    """A figure element of PNG bytes. caption: HTML."""
    return f"<figure>{image(data, alt)}<figcaption>{caption}</figcaption></figure>"


def table(frame: pd.DataFrame) -> str:
    """A table element with a header; all columns but TEXT_COLUMNS are aligned to the right."""
    head = "".join(f"<th{_alignment(name)}>{escape(name)}</th>" for name in frame.columns)
    rows = [
        "".join(f"<td{_alignment(name)}>{escape(value)}</td>" for name, value in zip(frame.columns, row, strict=True))
        for row in frame.itertuples(index=False)
    ]
    body = "".join(f"<tr>{row}</tr>" for row in rows)
    return f"<div class='wide'><table><tr>{head}</tr>{body}</table></div>"


def _alignment(column: str) -> str:
    return "" if column in TEXT_COLUMNS else " class='number'"


def number(value: float) -> str:
    """The value with three decimals, or "none" for nan."""
    return "none" if pd.isna(value) else f"{value:.3f}"


def interval(low: Iterable[float], high: Iterable[float]) -> list[str]:
    """The intervals as texts "[low, high]"; an empty text if a limit is nan."""
    return ["" if pd.isna(a) or pd.isna(b) else f"[{a:.3f}, {b:.3f}]" for a, b in zip(low, high, strict=True)]


def listed(names: Sequence[str], most: int = 6) -> str:
    """The names as a phrase: "a, b and c". Over most names, the last part is "<number> more"."""
    shown = [str(name) for name in names]
    if len(names) > most:
        shown = [*shown[: most - 1], f"{len(names) - most + 1} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"
