"""95 % intervals by a bootstrap over episodes, because frames of one episode are near copies.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13), drawn by scipy.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy import stats

LEVEL = 0.95
DRAWS = 2000


@dataclass
class Estimate:
    """A share, or a difference of shares, with its 95 % interval.

    count: number of images; episodes: number of independent groups among them.
    """

    value: float
    low: float
    high: float
    count: int
    episodes: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(right: ArrayLike, episodes: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of right with its interval over episodes. right: bool or float (n,), n >= 1; episodes: n names.

    If all values are 1, or all are 0, every bootstrap sample is equal and the interval would have no width. Then the
    interval is Clopper and Pearson's (1934) with one trial for each episode.
    """
    right = np.asarray(right, float)
    sums, counts = _by_episode(right, episodes)
    value, groups = float(right.mean()), len(counts)
    if right.min() == right.max() and right[0] in (0.0, 1.0):
        exact = stats.binomtest(groups if right[0] else 0, groups).proportion_ci(LEVEL, "exact")
        return Estimate(value, float(exact.low), float(exact.high), len(right), groups)
    low, high = _bootstrap(sums, counts, draws, seed, 0.0)
    return Estimate(value, low, high, len(right), groups)


def difference(one: ArrayLike, other: ArrayLike, episodes: ArrayLike, draws: int = DRAWS, seed: int = 0) -> Estimate:
    """Mean of one minus other on the same images, with its interval over episodes; value in -1..1.

    one, other: bool or float (n,); episodes: n names.
    """
    differences = np.asarray(one, float) - np.asarray(other, float)
    sums, counts = _by_episode(differences, episodes)
    low, high = _bootstrap(sums, counts, draws, seed, -1.0)
    return Estimate(float(differences.mean()), low, high, len(differences), len(counts))


def of(
    statistic: Callable[[np.ndarray], Sequence[float] | np.ndarray],
    episodes: ArrayLike,
    draws: int = 300,
    seed: int = 0,
) -> np.ndarray:
    """Intervals of any k statistics of a set of images: float (k, 2), low and high.

    The interval is nan if the statistic is undefined in half of the bootstrap samples, or equal in all of them.
    statistic: function from an index array (m,) to k floats, nan if undefined for those images; episodes: n names.
    """
    names = np.asarray(episodes, dtype=object)
    groups = list(pd.Series(range(len(names))).groupby(names).indices.values())
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([groups[group] for group in rng.integers(0, len(groups), len(groups))]))
            for _ in range(draws)
        ]
    )
    ends = np.full((values.shape[1], 2), np.nan)
    defined = np.isnan(values).mean(0) < 0.5
    ends[defined] = np.nanquantile(values[:, defined], ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0).T
    return np.where(ends[:, :1] == ends[:, 1:], np.nan, ends)


def _by_episode(values: np.ndarray, episodes: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """(sum, number) of the values of each episode."""
    grouped = pd.Series(values).groupby(np.asarray(episodes, dtype=object))
    return grouped.sum().to_numpy(), grouped.size().to_numpy()


def _bootstrap(sums: np.ndarray, counts: np.ndarray, draws: int, seed: int, least: float) -> tuple[float, float]:
    """The interval of a mean over episodes. least: smallest possible value of the mean; 1 is the largest."""
    if len(counts) < 2:
        return least, 1.0  # one episode gives no information about others
    interval = stats.bootstrap(
        (sums, counts),
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=draws,
        batch=200,
        confidence_level=LEVEL,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
