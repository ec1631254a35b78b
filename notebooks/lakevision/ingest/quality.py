"""What is wrong with a photograph, in CleanVision's manner: <issue>_score from 0 to 1, lower is worse, and is_<issue>_issue.

A night camera's frames are dark and no fault. So where a camera has a history, its own darkest frames say what dark means for it; the
global cut-offs serve until then. A fault that lasts for more than a twentieth of a camera's history becomes its normal: look at the scores, too.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from lakevision.ingest import image_statistics

ISSUES = ("dark", "light", "blurry", "low_information", "odd_size", "odd_aspect", "near_duplicate")
# Cut-off where a camera has no history, and how far below its own lowest twentieth a frame must fall where it has one.
# Measured on simulated porches and 240 photographs of a Pi camera: night frames score 0.19 dark, blur of 3 pixels in 600 takes 0.69 blurry to 0.45.
GLOBAL = {"dark": 0.32, "light": 0.05, "blurry": 0.40, "low_information": 0.30, "odd_aspect": 0.35}
OWN = {"dark": 0.6, "light": 0.6, "blurry": 0.8, "low_information": 0.6, "odd_aspect": 0.8}
BLACK = 0.02  # no camera's history makes this normal: 5 of 255 is a lens cap
HALF_SIZE = 0.5  # odd size: half or twice the usual side
NEAR_BITS = 4  # near duplicate: at most this many of 63 bits differ
ENOUGH = 50  # frames that make a history
LOW, POINTS = 0.05, np.linspace(0, 1, 41)


def scores(photo_statistics, width, height):
    """The scores that one photograph alone decides: {issue: 0..1} for dark, light, blurry, low_information and odd_aspect.

    dark: luma that 99 % of the pixels stay below; light: 1 - luma that 95 % exceed; blurry: sharpness; low_information: entropy of luma / 8.
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
    """What a camera's earlier frames scored. count: how many; quantiles: {issue or "side": float array (41,) at 0, 1/40, ..., 1}; side: sqrt(pixels)."""

    count: int
    quantiles: dict

    def quantile(self, name, share, more):
        """The quantile of the history together with more values, array (n,)."""
        old = self.quantiles.get(name, np.empty(0))
        values = np.concatenate([old, more])
        weights = np.concatenate([np.full(len(old), self.count / max(len(old), 1)), np.ones(len(more))])
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weights[order])
        return float(values[order][min(np.searchsorted(reached, share * reached[-1]), len(values) - 1)])


def judge(frames, histories):
    """Adds each photograph's issues. frames: DataFrame of device, side, score_<issue> for scores()'s issues, distance (bits to the nearest
    earlier photograph, NaN for none within NEAR_BITS); histories: {device: History}, brought up to date. Returns a DataFrame of
    <issue>_score and is_<issue>_issue for each of ISSUES, same index.
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
        placements = rows["side"].to_numpy(float)
        ratio = placements / history.quantile("side", 0.5, placements) if enough else np.ones(len(placements))
        judged.loc[rows.index, "odd_size_score"] = np.minimum(ratio, 1 / ratio)
        _remember(history, rows)
    judged["is_odd_size_issue"] = judged["odd_size_score"] <= HALF_SIZE
    judged["near_duplicate_score"] = (frames["distance"] / (NEAR_BITS + 1)).fillna(1.0)
    judged["is_near_duplicate_issue"] = frames["distance"].notna()
    return judged.astype(
        {f"{issue}_score": float for issue in ISSUES} | {f"is_{issue}_issue": bool for issue in ISSUES}
    )


def _remember(history, rows):
    for name in (*GLOBAL, "side"):
        values = rows["side" if name == "side" else f"score_{name}"].to_numpy(float)
        history.quantiles[name] = np.array([history.quantile(name, share, values) for share in POINTS])
    history.count += len(rows)
