"""Draws whole episodes into train, validation and test, so that each class gets its share in each split.

Rare classes are drawn first, while every split is still open to them. Each episode goes to the split that is filled
least (D'Hondt's rule). The order among equals is a hash of the seed and of the episode's name, so the order of the rows
changes nothing.
"""

from __future__ import annotations

import hashlib

import numpy as np
import pandas as pd


def place(
    counts: pd.DataFrame, filled: dict[str, np.ndarray], total: np.ndarray, shares: dict[str, float], seed: int
) -> dict[str, str]:
    """Chooses a split for each episode. Returns {episode: split}.

    counts: images of each new episode (index) and class (columns); filled: {split: images of each class that the split
    holds already}; total: images of each class in all splits together; shares: {split: its share of the images}.
    The last episodes of a class go to the splits that lack the class.
    """
    filled = dict(filled)
    sizes = dict(zip(counts.index, counts.to_numpy(float), strict=True))
    left = (counts.to_numpy() > 0).sum(0)  # episodes of each class that are still to be placed
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{seed} {name}".encode()).hexdigest())
    rarity = {name: left[sizes[name] > 0].min() for name in order}
    chosen = {}
    for episode in sorted(order, key=lambda name: rarity[name]):
        size = sizes[episode]
        present = size > 0
        rarest = np.flatnonzero(present)[left[present].argmin()]
        lacking = [split for split in shares if filled[split][rarest] == 0]
        candidates = lacking if 0 < left[rarest] <= len(lacking) else list(shares)
        fullness = {
            split: ((filled[split] + size)[present] / (shares[split] * total[present])).sum() for split in candidates
        }
        split = min(candidates, key=lambda name: fullness[name])  # noqa: B023 - called at once
        chosen[episode] = split
        filled[split] = filled[split] + size
        left = left - present
    return chosen
