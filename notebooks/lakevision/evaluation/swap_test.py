"""The swap test: does the prediction follow the object into another photograph?

Both photographs come from one camera and are alike in hour and light, so only the pasted region differs. A model that
looks at the object predicts the region's class. A model that has learnt the surroundings predicts the class of the
photograph around the region.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from lakevision.dataset import episodes, feed, object_region
from lakevision.evaluation import intervals
from lakevision.platform.config_sections import Evaluation
from lakevision.training import loop


@dataclass
class SwapResult:
    """The outcome of the swap test.

    followed: share of swaps between classes in which the model predicts the region's class.
    same_class: share of swaps within a class that keep their class; below 1 if seams alone change predictions.
    pairs: int (m, 2), test images, base and donor, of different classes; predicted: int (m,), their predicted classes;
    right: bool (m,), whether the prediction is the donor's class. unmatched: photographs without a partner.
    """

    followed: intervals.Estimate
    same_class: float
    pairs: np.ndarray
    predicted: np.ndarray
    right: np.ndarray
    unmatched: int


def measure(
    network: Callable,
    test: feed.Arrays,
    rows: pd.DataFrame,
    region: object_region.Region,
    settings: Evaluation,
    seed: int = 0,
) -> SwapResult | None:
    """Swaps regions between test images and predicts the results. None if no pair matches.

    network: callable on float32 batches; rows: DataFrame of device, captured_at, captured_from, episode in the order of
    test.
    """
    across, unmatched = _pairs(test, rows, region, settings, seed, same_class=False)
    within, _ = _pairs(test, rows, region, settings, seed, same_class=True)
    if not len(across):
        return None
    predicted, kept = _predict(network, test, across, region), _predict(network, test, within, region)
    right = predicted == test.targets[across[:, 1]]
    followed = intervals.share(right, rows["episode"].to_numpy()[across[:, 0]])
    same = float((kept == test.targets[within[:, 1]]).mean()) if len(within) else float("nan")
    return SwapResult(followed, same, across, predicted, right, unmatched)


def _pairs(
    test: feed.Arrays,
    rows: pd.DataFrame,
    region: object_region.Region,
    settings: Evaluation,
    seed: int,
    same_class: bool,
) -> tuple[np.ndarray, int]:
    """The best partner of each photograph: (int (m, 2) of base and donor, number of photographs without a partner)."""
    light, cells = object_region.surroundings(test.pixels, region)
    light = light.mean(1)
    timed = episodes.timed(rows)
    hour = (rows["captured_at"].dt.hour + rows["captured_at"].dt.minute / 60).to_numpy()
    camera, episode = rows["device"].fillna("unknown").to_numpy(), rows["episode"].to_numpy()
    pairs, unmatched = [], 0
    order = np.random.default_rng(seed).permutation(len(test))
    for base in order:
        hours_apart = np.abs(hour - hour[base])
        hours_apart = np.where(timed & timed[base], np.minimum(hours_apart, 24 - hours_apart), 0)
        darker = np.abs(np.log((light + 1) / (light[base] + 1)))
        fits = (
            (camera == camera[base]) & (episode != episode[base]) & ((test.targets == test.targets[base]) == same_class)
        )
        fits &= (hours_apart <= settings.swap_hours) & (darker <= np.log1p(settings.swap_light))
        if not fits.any():
            unmatched += 1
            continue
        # Hour and light select the candidates; the most similar surroundings select the partner among them.
        pairs.append((base, np.flatnonzero(fits)[np.abs(cells[fits] - cells[base]).mean(1).argmin()]))
        if len(pairs) == settings.swap_pairs:
            break
    return np.array(pairs, int).reshape(-1, 2), unmatched


def _predict(network: Callable, test: feed.Arrays, pairs: np.ndarray, region: object_region.Region) -> np.ndarray:
    """Predicted class of each base with its donor's region: int (m,)."""
    if not len(pairs):
        return np.empty(0, int)
    pasted = object_region.paste(test.pixels[pairs[:, 0]], test.pixels[pairs[:, 1]], region)
    return loop.predict(network, pasted).argmax(1)
