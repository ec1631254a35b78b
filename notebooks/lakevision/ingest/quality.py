"""Quality issues as in CleanVision: <issue>_score (0..1, lower is worse), is_<issue>_issue.

The frames of a night camera are dark without a fault. If a camera has a history, its own darkest frames therefore set
the cut-off; until then the global cut-offs apply. A fault that lasts for more than a twentieth of a camera's history
becomes its normal, so look at the scores, too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lakevision.ingest import image_statistics

ISSUES = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect", "near_duplicate")
# GLOBAL: cut-offs for a camera without a history. OWN: factors of the lowest twentieth of the camera's own scores.
# Measured on simulated porches and 240 photographs of a Pi camera: night frames have a dark score of 0.19; a blur of
# 3 pixels in 600 lowers the blurry score from 0.69 to 0.45.
GLOBAL = {"dark": 0.32, "light": 0.05, "blurry": 0.40, "low_information": 0.30, "odd_aspect": 0.35}
OWN = {"dark": 0.6, "light": 0.6, "blurry": 0.8, "low_information": 0.6, "odd_aspect": 0.8}
BLACK = 0.02  # an issue whatever the history: 5 of 255 is a lens cap
HALF_SIZE = 0.5  # odd size: at most half or at least twice the usual size
NEAR_BITS = 4  # near duplicate: at most this many of the 63 bits of the hash differ
ENOUGH = 50  # frames that make a history
LOW = 0.05  # the lowest twentieth of a history
POINTS = np.linspace(0, 1, 41)  # quantiles that a History keeps


def scores(photo_statistics: dict[str, Any], width: int, height: int) -> dict[str, float]:
    """The scores that depend on one photograph only: {issue: 0..1} for the issues of GLOBAL.

    dark: 99th percentile of luma; light: 1 - 5th percentile of luma; blurry: sharpness; low_information: entropy of
    luma / 8; odd_aspect: shorter / longer side. photo_statistics: see image_statistics.of(); width, height: pixels.
    """
    histogram = photo_statistics["luma"]["histogram"]
    sharp = photo_statistics["sharpness"]
    return {
        "dark": image_statistics.percentile(histogram, 0.99) / 255,
        "light": 1 - image_statistics.percentile(histogram, 0.05) / 255,
        "blurry": 1.0 if sharp is None else sharp,
        "low_information": photo_statistics["entropy"] / 8,
        "odd_aspect": min(width, height) / max(width, height),
    }


@dataclass
class History:
    """Scores of a camera's earlier frames.

    count: number of frames; quantiles: {issue or "side": float array (41,) at the shares 0, 1/40, ..., 1}, side is
    sqrt(width * height).
    """

    count: int
    quantiles: dict[str, np.ndarray]

    def quantile(self, name: str, share: float, more: np.ndarray) -> float:
        """The quantile at a share (0..1) of the history and further values together. more: float array (n,)."""
        old = self.quantiles.get(name, np.empty(0))
        values = np.concatenate([old, more])
        weights = np.concatenate([np.full(len(old), self.count / max(len(old), 1)), np.ones(len(more))])
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weights[order])
        return float(values[order][min(np.searchsorted(reached, share * reached[-1]), len(values) - 1)])


def judge(frames: pd.DataFrame, histories: dict[str, History]) -> pd.DataFrame:
    """The issues of each photograph: <issue>_score and is_<issue>_issue for each of ISSUES, with the index of frames.

    frames: columns device, side (sqrt(width * height)), score_<issue> for the issues of scores(), and distance (bits to
    the nearest earlier photograph; NaN if none is within NEAR_BITS). histories: {device: History}; updated in place.
    """
    judged = pd.DataFrame(
        index=frames.index, columns=[name for issue in ISSUES for name in (f"{issue}_score", f"is_{issue}_issue")]
    )
    for device, rows in frames.groupby("device", sort=False):
        history = histories.setdefault(device, History(0, {}))
        enough = history.count + len(rows) >= ENOUGH
        for issue, cut in GLOBAL.items():
            values = rows[f"score_{issue}"].to_numpy(float)
            if enough:
                cut = OWN[issue] * history.quantile(issue, LOW, values)
                cut = max(cut, BLACK) if issue == "dark" else cut
            judged.loc[rows.index, f"{issue}_score"] = values
            judged.loc[rows.index, f"is_{issue}_issue"] = values < cut
        size = rows["side"].to_numpy(float)
        ratio = size / history.quantile("side", 0.5, size) if enough else np.ones(len(size))
        judged.loc[rows.index, "odd_size_score"] = np.minimum(ratio, 1 / ratio)
        _remember(history, rows)
    judged["is_odd_size_issue"] = judged["odd_size_score"] <= HALF_SIZE
    judged["near_duplicate_score"] = (frames["distance"] / (NEAR_BITS + 1)).fillna(1.0)
    judged["is_near_duplicate_issue"] = frames["distance"].notna()
    return judged.astype(
        {f"{issue}_score": float for issue in ISSUES} | {f"is_{issue}_issue": bool for issue in ISSUES}
    )


def _remember(history: History, rows: pd.DataFrame) -> None:
    for name in (*GLOBAL, "side"):
        values = rows["side" if name == "side" else f"score_{name}"].to_numpy(float)
        history.quantiles[name] = np.array([history.quantile(name, share, values) for share in POINTS])
    history.count += len(rows)
