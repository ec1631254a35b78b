"""A user's own photographs: ten class folders, names that repeat in every folder, small images without EXIF."""

import json

import numpy as np
import pytest
from PIL import Image, ImageDraw

pytestmark = pytest.mark.chain
CLASSES = ["bar", "box", "cross", "disc", "dots", "frame", "half", "ring", "stripes", "wedge"]


def draw(kind, rng):
    """A photograph of a class, 40 px square."""
    image = Image.new("RGB", (40, 40), tuple(int(value) for value in rng.integers(0, 70, 3)))
    pen, ink = ImageDraw.Draw(image), tuple(int(value) for value in rng.integers(150, 256, 3))
    x, y = (int(value) for value in rng.integers(2, 10, 2))
    box = (x, y, x + 26, y + 26)
    {
        "bar": lambda: pen.rectangle((x, y + 10, x + 26, y + 15), ink),
        "box": lambda: pen.rectangle(box, ink),
        "cross": lambda: [pen.line((x, y, x + 26, y + 26), ink, 4), pen.line((x + 26, y, x, y + 26), ink, 4)],
        "disc": lambda: pen.ellipse(box, ink),
        "dots": lambda: [
            pen.ellipse((x + a, y + b, x + a + 5, y + b + 5), ink) for a in (0, 10, 20) for b in (0, 10, 20)
        ],
        "frame": lambda: pen.rectangle(box, None, ink, 3),
        "half": lambda: pen.rectangle((0, 0, 40, 18 + y // 3), ink),
        "ring": lambda: pen.ellipse(box, None, ink, 3),
        "stripes": lambda: [pen.line((0, row, 40, row), ink, 2) for row in range(y % 6, 40, 6)],
        "wedge": lambda: pen.polygon([(x, y), (x + 26, y), (x, y + 26)], ink),
    }[kind]()
    return image


def test_class_folders_become_classes(command, run_folder, tmp_path):
    rng = np.random.default_rng(3)
    source = tmp_path / "my photographs"
    for kind in CLASSES:
        (source / kind).mkdir(parents=True)
        for number in range(14):
            draw(kind, rng).save(source / kind / f"IMG_{number:04d}.png")
    (source / "README.txt").write_text("not a photograph")
    settings = [
        "training.transform='decode|upright|rgb|resize(32)'",
        "tuning.trials=2",
        "tuning.epochs=1",
        "training.epochs=5",
        "evaluation.control_epochs=1",
        "evaluation.explained=2",
        "deploy.parity_images=8",
        f"storage.root={tmp_path / 'lakehouse'}",
    ]
    done = command("--images", source, *(word for setting in settings for word in ("--set", setting)))
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    summary = json.loads((run_folder(done) / "summary.json").read_text())
    assert (summary["capture"]["new"], summary["capture"]["skipped"], summary["ingest"]["images"]) == (
        14 * len(CLASSES),
        1,
        14 * len(CLASSES),
    )
    assert summary["train"]["classes"] == sorted(CLASSES) and np.shape(summary["train"]["confusion"]) == (
        len(CLASSES),
        len(CLASSES),
    )
    # Without capture times, leakage can't be checked: the verdict can't be "evaluable".
    assert summary["train"]["verdict"] != "evaluable" and any(
        "unchecked" in reason for reason in summary["train"]["reasons"]
    )
    assert summary["deploy"]["parity"] < 1e-5
