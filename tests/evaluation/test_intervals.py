"""Intervals cover what they say, count episodes, and never take a perfect score for certainty."""

import numpy as np
import pytest

from lakevision.evaluation import intervals


def test_episodes_count_not_frames():
    right = np.random.default_rng(0).random(40) < 0.8
    narrow = intervals.share(np.repeat(right, 10), np.arange(400))
    honest = intervals.share(np.repeat(right, 10), np.repeat(np.arange(40), 10))
    assert honest.high - honest.low > 2 * (narrow.high - narrow.low)
    assert honest.low < right.mean() < honest.high and (honest.count, honest.episodes) == (400, 40)


def test_95_percent_of_the_intervals_hold_the_truth():
    rng, held = np.random.default_rng(1), 0
    for _ in range(200):
        of_episode = rng.beta(7, 3, 60)  # episodes differ; the mean is 0.7
        frames = rng.random((60, 4)) < of_episode[:, None]
        figure = intervals.share(frames.ravel(), np.repeat(np.arange(60), 4), draws=400)
        held += figure.low <= 0.7 <= figure.high
    assert 0.90 <= held / 200 <= 0.99


@pytest.mark.parametrize("count, low", [(1, 0.025), (4, 0.398), (50, 0.929)])
def test_perfect_score_is_wider_with_fewer_episodes(count, low):
    figure = intervals.share(np.ones(count * 3, bool), np.repeat(np.arange(count), 3))
    assert figure.value == figure.high == 1 and figure.low == pytest.approx(
        low, abs=1e-3
    )  # Clopper-Pearson: 0.025 ** (1 / n)
    none = intervals.share(np.zeros(count * 3, bool), np.repeat(np.arange(count), 3))
    assert none.value == none.low == 0 and none.high == pytest.approx(1 - low, abs=1e-3)


def test_paired_difference_is_narrower_than_two_intervals():
    rng = np.random.default_rng(2)
    hard = rng.random(300) < 0.3
    one, other = ~hard, ~hard & (rng.random(300) < 0.97)
    apart = intervals.difference(one, other, np.arange(300))
    alone = intervals.share(one, np.arange(300))
    assert 0 < apart.low <= apart.value <= apart.high < 0.1 and apart.high - apart.low < alone.high - alone.low


def test_undefined_or_certain_figures_get_no_interval():
    ends = intervals.of(lambda index: [index.mean(), float("nan"), 1.0], np.arange(50))
    assert ends[0, 0] < 24.5 < ends[0, 1] and np.isnan(ends[1:]).all()


def test_single_episode_gives_no_interval():
    share, apart = (
        intervals.share([True, False], ["a", "a"]),
        intervals.difference([True, False], [False, False], ["a", "a"]),
    )
    assert (share.low, share.high) == (0, 1) and (apart.low, apart.high) == (-1, 1)
