"""The pictures of 04_deploy and 05_score: which images and rows they show."""

from dataclasses import replace

import numpy as np
import pandas as pd
from release_cases import AGREED, changed, decide

from device.simulation import porch
from lakevision.release import plots

HISTORY = pd.DataFrame(
    [
        {
            "decided_at": pd.Timestamp("2026-03-02"),
            "version": str(number),
            "promoted": number % 2 == 0,
            "forced": False,
            "action": "gate",
            "reason": "long " * (10 * number),
        }
        for number in range(20)
    ]
)


def test_images_on_which_paths_differ_are_shown_first():
    assert plots.worst(AGREED, 1e-5, 2) == [(0, "LiteRT int8"), (1, "LiteRT int8")]
    assert plots.worst(changed("LiteRT int8", 1, np.array([0.3, 0.7])), 1e-5, 2)[0] == (1, "LiteRT int8")
    refused = changed("REST", 1, None)
    assert plots.worst(refused, 1e-5, 2) == [(1, "REST"), (0, "LiteRT int8")]
    taken = replace(
        refused,
        scores={**refused.scores, "Spark": [np.array([0.8, 0.2]), *refused.scores["Spark"][1:2], np.array([0.5, 0.5])]},
    )
    assert plots.worst(taken, 1e-5, 6) == [(1, "REST"), (2, "Spark"), (0, "Spark")]
    photograph = porch.jpeg(porch.plan(1, size=(64, 64))[0])
    figure = plots.paths(
        replace(taken, images=[photograph, photograph, b"<html>"]),
        decide(agreed=taken).table(),
        HISTORY,
        "three differ",
        1e-5,
    )
    figure.canvas.draw()
    titles = [axis.get_title() for axis in figure.axes]
    assert titles[:3] == [
        "night\nP(package): Keras 0.800\nREST refused",
        "HTML\nP(package): Keras refused\nSpark 0.500",
        "day\nP(package): Keras 0.100\nSpark 0.200",
    ]


def test_ledger_shows_whole_reasons_newest_first():
    figure = plots.paths(
        replace(AGREED, images=[porch.jpeg(porch.plan(1, size=(64, 64))[0])] * 3),
        decide().table(),
        HISTORY.head(4),
        "",
        1e-5,
    )
    cells = figure.axes[-1].tables[0].get_celld()
    assert [cells[row, 1].get_text().get_text() for row in range(1, 5)] == ["3", "2", "1", "0"]
    assert (
        cells[2, 3].get_text().get_text().split() == ["gate:", *["long"] * 20]
        and cells[2, 3].get_height() > cells[4, 3].get_height()
    )


def test_predictions_are_drawn_by_label_and_errors_are_counted():
    frame = pd.DataFrame(
        {
            "captured_at": pd.to_datetime(["2026-03-01 07:00", "2026-03-01 07:30", "2026-03-01 22:00"]),
            "device": "porch-1",
            "label": ["empty", "package", None],
            "probability": [0.9, 0.6, None],
            "error": [None, None, "not an image"],
        }
    )
    photograph = porch.jpeg(porch.plan(1, size=(64, 64))[0])
    figure = plots.predictions(frame, [(photograph, "package 0.60")], "three photographs")
    hours, certainty, image = figure.axes
    assert [text.get_text() for text in hours.get_legend().get_texts()] == ["empty", "package"]
    assert sum(bar.get_height() for bar in hours.patches) == 2
    assert "1 could not be scored" in certainty.get_title() and image.get_title() == "least certain: package 0.60"
    figure.canvas.draw()


def test_no_prediction_is_a_picture_that_names_the_reason():
    frame = pd.DataFrame({name: [] for name in ("captured_at", "device", "label", "probability", "error")})
    figure = plots.predictions(frame, [], "nothing")
    assert [text.get_text() for text in figure.axes[0].texts] == ["nothing has been scored"]
