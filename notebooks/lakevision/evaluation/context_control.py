"""The context-only control: the same network, trained and tested with the object's region hidden.

Its accuracy shows how much of the label the surroundings reveal.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from lakevision.dataset import feed, object_region
from lakevision.training import loop

STEPS = 500  # minimum: few photographs make few steps an epoch, and an untrained control proves nothing


def control(
    placements: dict[str, feed.Arrays], setting: loop.Setting, region: object_region.Region, epochs: int
) -> np.ndarray:
    """Trains a network of the same setting on the surroundings; returns its probabilities on the test split.

    placements: {"train", "validation", "test": feed.Arrays}; setting: of the model under test;
    epochs: fewer than the model's own suffice, because a shortcut is learnt fast; raised to reach STEPS steps.
    Returns float32 (tests, classes).
    """
    hidden = {
        split: replace(arrays, pixels=object_region.hide(arrays.pixels, region)) for split, arrays in placements.items()
    }
    own = replace(setting, epochs=max(epochs, -(-STEPS * setting.batch_size // len(placements["train"]))), swap=0.0)
    trained = loop.fit(hidden["train"], hidden["validation"], own)
    return loop.predict(loop.with_weights(own, trained.weights), hidden["test"].pixels)
