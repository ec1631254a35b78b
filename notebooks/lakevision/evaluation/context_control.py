"""The context-only control: the same network, trained and judged with the object's region hidden. What it can tell, the surroundings tell."""

from dataclasses import replace

from lakevision.dataset import object_region
from lakevision.training import loop

STEPS = 500  # at least: few photographs make few steps an epoch, and a control that has learnt nothing proves nothing


def control(sides, setting, where, epochs):
    """Trains a network of the same setting on the surroundings and asks it on the test side: probabilities, float32 (tests, classes).

    sides: {"train", "validation", "test": feed.Arrays}; setting: loop.Setting; where: Region; epochs: fewer than the model's own are enough, for
    what a shortcut tells is learnt fast; more are made of them where they would be less than STEPS steps.
    """
    hidden = {side: replace(arrays, pixels=object_region.hide(arrays.pixels, where)) for side, arrays in sides.items()}
    own = replace(setting, epochs=max(epochs, -(-STEPS * setting.batch_size // len(sides["train"]))), swap=0.0)
    trained = loop.fit(hidden["train"], hidden["validation"], own)
    return loop.predict(loop.with_weights(own, trained.weights), hidden["test"].pixels)
