"""Does the prediction follow the object? The region of one held-out photograph is put into the surroundings of another.

Pairs are of one camera and alike in hour and light, so that the exchanged region is all that differs. A model that looks at the object
says what the region holds; one that has learnt the surroundings says what they used to hold.
"""

from dataclasses import dataclass

import numpy as np

from lakevision.dataset import episodes, object_region
from lakevision.evaluation import intervals
from lakevision.training import loop


@dataclass
class Swapped:
    """followed: share of swaps between classes where the prediction is the region's class, with its interval (intervals.Estimate); same_class: share of
    swaps within a class where it stays that class: seams alone must change nothing. pairs: int (m, 2) of test images, base and donor; said: int (m,)
    predictions; right: bool (m,). unmatched: photographs that had no partner."""

    followed: intervals.Estimate
    same_class: float
    pairs: np.ndarray
    said: np.ndarray
    right: np.ndarray
    unmatched: int


def measure(network, test, rows, region, settings, seed=0):
    """Swaps regions and asks the network. test: feed.Arrays; rows: DataFrame of device, captured_at, captured_from, episode in the order of test;
    region: Region; settings: Config.evaluation. Returns Swapped, or None where no pair matches."""
    across, unmatched = _pairs(test, rows, region, settings, seed, same_class=False)
    within, _ = _pairs(test, rows, region, settings, seed, same_class=True)
    if not len(across):
        return None
    said, own = _ask(network, test, across, region), _ask(network, test, within, region)
    right = said == test.targets[across[:, 1]]
    followed = intervals.share(right, rows["episode"].to_numpy()[across[:, 0]])
    same = float((own == test.targets[within[:, 1]]).mean()) if len(within) else float("nan")
    return Swapped(followed, same, across, said, right, unmatched)


def _pairs(test, rows, region, settings, seed, same_class):
    """The best partner of each photograph: (int (m, 2) of base and donor, number of photographs without one)."""
    light, cells = object_region.surroundings(test.pixels, region)
    light = light.mean(1)
    timed = episodes.timed(rows)
    hour = (rows["captured_at"].dt.hour + rows["captured_at"].dt.minute / 60).to_numpy()
    camera, episode = rows["device"].fillna("unknown").to_numpy(), rows["episode"].to_numpy()
    found, unmatched = [], 0
    order = np.random.default_rng(seed).permutation(len(test))
    for base in order:
        apart = np.abs(hour - hour[base])
        apart = np.where(timed & timed[base], np.minimum(apart, 24 - apart), 0)
        darker = np.abs(np.log((light + 1) / (light[base] + 1)))
        fits = (
            (camera == camera[base]) & (episode != episode[base]) & ((test.targets == test.targets[base]) == same_class)
        )
        fits &= (apart <= settings.swap_hours) & (darker <= np.log1p(settings.swap_light))
        if not fits.any():
            unmatched += 1
            continue
        # Hour and light decide first what may be a partner, then the surroundings which is the best.
        found.append((base, np.flatnonzero(fits)[np.abs(cells[fits] - cells[base]).mean(1).argmin()]))
        if len(found) == settings.swap_pairs:
            break
    return np.array(found, int).reshape(-1, 2), unmatched


def _ask(network, test, pairs, region):
    if not len(pairs):
        return np.empty(0, int)
    return loop.predict(
        network, object_region.paste(test.pixels[pairs[:, 0]], test.pixels[pairs[:, 1]], region)
    ).argmax(1)
