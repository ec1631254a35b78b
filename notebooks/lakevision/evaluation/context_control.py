"""The context-only control: the same network, trained and judged with the object's region hidden. What it can tell, the surroundings tell."""

from dataclasses import replace

from lakevision.dataset import object_region
from lakevision.training import loop

STEPS = 500  # at least: few photographs make few steps an epoch, and a control that has learnt nothing proves nothing


def control(placements, setting, region, epochs):
    """Trains a network of the same setting on the surroundings and asks it on the test side: probabilities, float32 (tests, classes).

    sides: {"train", "validation", "test": feed.Arrays}; setting: loop.Setting; region: Region; epochs: fewer than the model's own are enough, for
    what a shortcut tells is learnt fast; more are made of them where they would be less than STEPS steps.
    """
    hidden = {
        side: replace(arrays, pixels=object_region.hide(arrays.pixels, region)) for side, arrays in placements.items()
    }
    own = replace(setting, epochs=max(epochs, -(-STEPS * setting.batch_size // len(placements["train"]))), swap=0.0)
    trained = loop.fit(hidden["train"], hidden["validation"], own)
    return loop.predict(loop.with_weights(own, trained.weights), hidden["test"].pixels)
