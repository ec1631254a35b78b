"""An evaluation as a whole: swaps, and the worst errors first."""

import numpy as np
import pandas as pd

from lakevision.dataset import split
from lakevision.dataset.feed import Arrays
from lakevision.evaluation import confounding, evaluate
from lakevision.platform import config

HUES = np.array(
    [
        [200, 40, 40],
        [40, 200, 40],
        [40, 40, 200],
        [200, 200, 40],
        [200, 40, 200],
        [40, 200, 200],
        [240, 240, 240],
        [20, 20, 20],
        [120, 120, 120],
        [240, 130, 20],
    ]
)


def made(classes, count=200, times=True, seed=0, noise=20):
    """(images, sides, warnings, arrays, names): squares of a colour in the middle; the colour is the class."""
    rng = np.random.default_rng(seed)
    episode = np.repeat(np.arange(count // 2), 2)
    targets = np.repeat(rng.integers(0, classes, count // 2), 2).astype(np.int32)
    names = [f"kind <{chr(97 + number)}>" for number in range(classes)]
    pixels = np.clip(100 + rng.normal(0, noise, (count, 32, 32, 3)), 0, 255).astype(np.uint8)
    pixels[:, 10:22, 10:22] = HUES[targets][:, None, None] + rng.integers(-15, 15, (count, 12, 12, 3))
    at = pd.Timestamp("2026-03-01") + pd.to_timedelta(episode * 137 + np.tile([0, 1], count // 2), unit="min")
    images = pd.DataFrame(
        {
            "path": [f"<{number}>.jpg" for number in range(count)],
            "sha256": [f"{number:016x}" for number in range(count)],
            "device": [f"cam{number % 3}" for number in episode],
            "label": [names[target] for target in targets],
            "captured_at": at,
            "captured_from": "exif" if times else "file",
            "width": 32,
            "height": 32,
            "exif": [{"Model": "m"}] * count if times else None,
            "quality": [{"blur_score": float(rng.random())}] * count,
        }
    )
    if times:
        images["brightness"] = pixels.mean((1, 2, 3)) / 255
    placed, warnings = split.assign(images, config.load("local").split)
    placements = split.used(placed)
    arrays = {}
    for side in split.SPLIT_NAMES:
        index = (
            placements.loc[placements["split"] == side, "sha256"].map(lambda key: int(key, 16)).sort_values().to_numpy()
        )
        arrays[side] = Arrays(pixels[index], targets[index], list(images["sha256"].iloc[index]))
    return images, placements, warnings, arrays, names


def network(classes, slip=0.0):
    """Says the colour of the middle, and slips in a share of the pictures."""

    def predict(batch):
        middle = np.asarray(batch)[:, 12:20, 12:20].mean((1, 2))
        far = np.abs(middle[:, None] - HUES[:classes]).sum(2)
        said = np.exp(-far / 30) + 1e-4
        wrong = (middle.sum(1) * 1000 % 1) < slip
        said[wrong] = np.roll(said[wrong], 1, axis=1)
        return (said / said.sum(1, keepdims=True)).astype(np.float32)

    return predict


def judged(classes, slip=0.0, settings=(), **more):
    images, placements, warnings, arrays, names = made(classes, **more)
    cfg = config.load("local", ["capture.source=folder", "evaluation.control_epochs=0", *settings])
    checked = confounding.check(images, placements, list(arrays.values()))
    return cfg, *evaluate.on_test(
        cfg, network(classes, slip), None, evaluate.Data(arrays, placements, images, warnings, checked, tuple(names))
    )


def test_known_region_is_exchanged():
    _, evaluation, material = judged(
        2, 0.0, ["evaluation.region_from=config", "evaluation.region=[0.25, 0.25, 0.75, 0.75]"]
    )
    assert (
        evaluation.region.endswith("(config)") and evaluation.swap_followed > 0.95 and evaluation.swap_same_class > 0.95
    )
    assert len(material.swapped.pairs) > 10


def test_worst_errors_come_first(two):
    _, _, material = two
    truth = material.probabilities[np.arange(len(material.test)), material.test.targets]
    assert (np.diff(truth[material.shown]) >= 0).all() and not material.right[material.shown[0]]
    assert material.falls.shape == (len(material.shown), 8, 8)
