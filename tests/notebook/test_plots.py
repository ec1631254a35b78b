"""The notebooks' pictures have titles, axes with units, and everything that they were given."""

import io

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from lakevision.notebook import plots


def jpeg(grey):
    out = io.BytesIO()
    Image.new("RGB", (32, 24), (grey,) * 3).save(out, "JPEG")
    return out.getvalue()


def texts(figure):
    return [axis.get_title() for axis in figure.axes]


def test_contact_sheet_captions_each_photograph():
    figure = plots.contact_sheet([(jpeg(20 * index), f"photograph {index}") for index in range(7)], "Seven", columns=4)
    assert texts(figure) == [f"photograph {index}" for index in range(7)] + [""]
    assert figure.get_suptitle() == "Seven"


def test_by_hour_counts_each_photograph_once():
    hours = pd.to_datetime([f"2026-03-02T{hour:02d}:30" for hour in (7, 7, 8, 23)])
    images = pd.DataFrame(
        {"captured_at": hours, "label": ["cat", None, "cat", "dog"], "brightness": 0.5, "device": ["a", "a", "b", "b"]}
    )
    figure = plots.by_hour(images, "By hour")
    left, right = figure.axes
    assert sum(bar.get_height() for bar in left.patches) == 4 and left.get_xlabel().endswith("(UTC)")
    assert [text.get_text() for text in left.get_legend().get_texts()] == ["(none)", "cat", "dog"]
    assert [text.get_text() for text in right.get_legend().get_texts()] == ["a", "b"]
    assert right.get_ylabel() == "mean luma (0 to 1)"


def test_training_shows_both_curves_and_the_confusion():
    history = [{"loss": 1.0 - step / 10, "val_loss": 1.1, "accuracy": 0.5, "val_accuracy": 0.4} for step in range(3)]
    loss, accuracy, matrix = plots.training(history, np.array([[5, 1], [0, 4]]), ["a", "b"], "Training").axes
    assert [len(line.get_xdata()) for line in loss.lines + accuracy.lines] == [3, 3, 3, 3]
    assert loss.get_ylabel() == "cross-entropy (nats)"
    assert [text.get_text() for text in matrix.texts] == ["5", "1", "0", "4"]


@pytest.mark.parametrize("failed", [0, 1], ids=["all finished", "one failed"])
def test_search_draws_a_line_for_each_trial(failed):
    trials = [
        {
            "number": index,
            "status": "ok",
            "loss": 0.5 - index / 10,
            "learning_rate": 0.001 * (index + 1),
            "dropout": 0.1,
            "width": 16,
        }
        for index in range(3)
    ]
    trials += [{"number": 3, "status": "fail", "learning_rate": 0.1, "dropout": 0.2, "width": 24}] * failed
    left, right, *_ = plots.search(trials, "Search").axes
    assert (
        len([line for line in right.lines if len(line.get_xdata()) in (3, 4) and line.get_linestyle() in ("-", "--")])
        >= 3
    )
    assert left.get_xlim() == (0.5, len(trials) + 0.5)
    assert sum(line.get_linestyle() == "--" for line in right.lines) == failed
