"""The draw: shares are met, rare classes reach every split, and the seed alone fixes the order."""

import numpy as np
import pandas as pd
import pytest

from lakevision.dataset import draw

SHARES = {"train": 0.6, "validation": 0.2, "test": 0.2}


def place(counts, seed=1):
    empty = {split: np.zeros(counts.shape[1]) for split in SHARES}
    return draw.place(counts, empty, counts.to_numpy(float).sum(0), SHARES, seed)


def episodes(count, images=(5, 5)):
    return pd.DataFrame([images] * count, index=[f"episode {number}" for number in range(count)], columns=["a", "b"])


def test_shares_are_met():
    chosen = pd.Series(place(episodes(100)))
    assert chosen.value_counts(normalize=True).to_dict() == pytest.approx(SHARES, abs=0.02)


def test_three_episodes_of_a_rare_class_reach_all_splits():
    counts = episodes(40, (5, 0))
    counts.iloc[:3] = (5, 1)
    assert {place(counts)[episode] for episode in counts.index[:3]} == set(SHARES)


def test_order_of_episodes_changes_nothing_but_the_seed_does():
    counts = episodes(30)
    assert place(counts) == place(counts.iloc[::-1]) != place(counts, seed=2)


def test_filled_splits_get_fewer_episodes():
    counts = episodes(10)
    filled = {"train": np.zeros(2), "validation": np.zeros(2), "test": np.array([50.0, 50.0])}
    chosen = draw.place(counts, filled, np.array([100.0, 100.0]), SHARES, 1)
    assert "test" not in chosen.values() and (filled["train"] == 0).all()
