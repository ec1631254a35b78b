"""How far a figure can be trusted: 95 % intervals by a bootstrap over episodes, not frames, for frames of one episode are near copies.

Percentile bootstrap (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, ch. 13), drawn by scipy.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

LEVEL = 0.95
DRAWS = 2000


@dataclass
class Estimate:
    """A share with its interval. count: images; episodes: how many of them are independent."""

    value: float
    low: float
    high: float
    count: int
    episodes: int

    def __str__(self):
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def share(right, episodes, draws=DRAWS, seed=0):
    """Share of right, bool or float (n,), n >= 1, with its interval over episodes (n names). Returns Figure.

    Where all are right, or none, every draw says the same and the bootstrap knows no doubt: then the interval is Clopper and Pearson's (1934)
    with one trial an episode.
    """
    right = np.asarray(right, float)
    sums, counts = _by_episode(right, episodes)
    value, groups = float(right.mean()), len(counts)
    if right.min() == right.max() and right[0] in (0.0, 1.0):
        exact = stats.binomtest(groups if right[0] else 0, groups).proportion_ci(LEVEL, "exact")
        return Estimate(value, float(exact.low), float(exact.high), len(right), groups)
    low, high = _bootstrap(sums, counts, draws, seed, 0.0)
    return Estimate(value, low, high, len(right), groups)


def difference(one, other, episodes, draws=DRAWS, seed=0):
    """Mean of one minus other, bool or float (n,) each, on the same images, with its interval over episodes. Returns Estimate, value in -1..1."""
    apart = np.asarray(one, float) - np.asarray(other, float)
    sums, counts = _by_episode(apart, episodes)
    low, high = _bootstrap(sums, counts, draws, seed, -1.0)
    return Estimate(float(apart.mean()), low, high, len(apart), len(counts))


def of(statistic, episodes, draws=300, seed=0):
    """Intervals of any figures of a set of images: float (k, 2), nan where most draws have none, or where all draws say the same and so no doubt is
    known.

    statistic: index array (m,) -> k floats, nan where those images have none; episodes: n names.
    """
    groups = list(pd.Series(range(len(episodes))).groupby(np.asarray(episodes, dtype=object)).indices.values())
    rng = np.random.default_rng(seed)
    values = np.array(
        [
            statistic(np.concatenate([groups[place] for place in rng.integers(0, len(groups), len(groups))]))
            for _ in range(draws)
        ]
    )
    ends = np.full((values.shape[1], 2), np.nan)
    often = np.isnan(values).mean(0) < 0.5
    ends[often] = np.nanquantile(values[:, often], ((1 - LEVEL) / 2, (1 + LEVEL) / 2), axis=0).T
    return np.where(ends[:, :1] == ends[:, 1:], np.nan, ends)


def _by_episode(values, episodes):
    grouped = pd.Series(values).groupby(np.asarray(episodes, dtype=object))
    return grouped.sum().to_numpy(), grouped.size().to_numpy()


def _bootstrap(sums, counts, draws, seed, least):
    """The interval of a mean over episodes. least: the smallest value that it can have; 1 is the largest."""
    if len(counts) < 2:
        return least, 1.0  # one episode says nothing of others
    found = stats.bootstrap(
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
    return float(found.low), float(found.high)
