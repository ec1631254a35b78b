"""The words of a run's figures: every key of a summary has them, and none is lost."""

import dataclasses

import pytest

from lakevision.evaluation import evaluate
from lakevision.ingest import stream
from lakevision.job import page_words
from lakevision.serving.spark import score

COMPARED = {
    "version": "1",
    "note": "",
    "champion": 0.9,
    "challenger": 0.95,
    "difference": 0.05,
    "low": -0.01,
    "high": 0.1,
    "images": 1200,
}


def texts(summary):
    return {label: text for _, label, text in page_words.rows(summary)}


def test_every_reported_figure_has_words():
    """The keys of the dataclasses that the notebooks report, which the whole chain's test compares with a real
    summary.
    """
    reported = {"ingest": stream.Ingested, "train": evaluate.Evaluation, "score": score.Scored}
    keys = {f"{stage}.{field.name}" for stage, cls in reported.items() for field in dataclasses.fields(cls)}
    assert keys <= page_words.KNOWN


def test_figure_without_words_keeps_its_key():
    rows = page_words.rows({"notebooks": [], "train": {"novelty": 0.25}, "drift": {"psi": {"hour": 1}}})
    assert rows == [(page_words.OTHER, "train.novelty", "0.250"), (page_words.OTHER, "drift.psi", '{"hour": 1}')]


def test_stage_that_never_ran_has_no_rows():
    assert page_words.rows({"notebooks": []}) == []


@pytest.mark.parametrize(
    "figures, label, text",
    [
        pytest.param(
            {"accuracy": 0.98, "low": 0.9, "high": 1.0},
            "Accuracy on held-out episodes (0 to 1)",
            "0.980 (95 % interval 0.900 to 1.000)",
            id="interval",
        ),
        pytest.param(
            {"context_only": None}, "Control: same network with the object hidden (accuracy)", "not measured", id="none"
        ),
        pytest.param(
            {"confusion": [[5, 1], [0, 1200]], "classes": ["empty", "package"]},
            "Correct held-out images of each class",
            "empty 5 of 6, package 1,200 of 1,200",
            id="confusion",
        ),
        pytest.param(
            {"champion": COMPARED},
            "Champion before, on the held-out images (accuracy)",
            "version 1: 0.900, the new model 0.950 on the same 1,200 images; difference +0.050 "
            "(95 % interval -0.010 to +0.100)",
            id="champion",
        ),
        pytest.param(
            {"champion": {"version": "1", "note": "other classes"}},
            "Champion before, on the held-out images (accuracy)",
            "version 1: other classes",
            id="no comparison",
        ),
        pytest.param(
            {"champion": {}}, "Champion before, on the held-out images (accuracy)", "no model served before", id="first"
        ),
        pytest.param(
            {"confounders": []}, "Features other than the object that explain the label", "none", id="empty list"
        ),
        pytest.param(
            {"swap_followed": 0.625}, "Prediction follows the object into another photograph", "62.5 %", id="share"
        ),
    ],
)
def test_figures_are_written_with_units(figures, label, text):
    assert texts({"train": figures})[label] == text


@pytest.mark.parametrize(
    "value, text", [(12.34, "12.3 s"), (119.9, "119.9 s"), (125.2, "2 min 5 s"), (None, "not measured")]
)
def test_durations_are_seconds_or_minutes(value, text):
    assert page_words.seconds(value) == text


@pytest.mark.parametrize(
    "value, text",
    [(True, "yes"), (1234567, "1,234,567"), (0.0, "0.000"), (1.79e-7, "1.79e-07"), (None, "not measured")],
)
def test_plain_values(value, text):
    assert page_words.plain(value) == text


def test_minutes_never_show_sixty_seconds():
    assert page_words.seconds(359.8) == "6 min 0 s" and page_words.seconds(119.94) == "119.9 s"
