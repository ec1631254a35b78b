"""The page of a run answers questions in order, escapes text and needs no other file."""

import re

from lakevision.job import notebook_runner, page, page_words

SUMMARY = {
    "notebooks": [
        {"name": "03_train", "seconds": 61.0, "status": "ok"},
        {"name": "04_deploy", "seconds": 70.0, "status": "failed"},
        {"name": "05_score", "seconds": 0.0, "status": "not run"},
    ],
    "train": {
        "verdict": "weak",
        "accuracy": 0.5,
        "metadata_baseline": 0.25,
        "reasons": ["chance is <in> the interval"],
        "report": "/lake/report.html",
    },
    "deploy": {"model": "m", "version": "2", "alias": "challenger", "promoted": False, "reason": "not above"},
}
PICTURE = notebook_runner.Done("03_train", 61.0, "ok", pictures=["Zmlyc3Q=", "bGFzdA=="])


def test_questions_come_in_the_order_in_which_a_person_asks():
    text = page.render(SUMMARY, [PICTURE], "Run of today")
    headings = re.findall("<h2>(.*?)</h2>", text)
    assert headings == [
        "Did it work?",
        "Which version serves, and why?",
        "How good is it?",
        "How long did it take?",
        "03_train",
    ]
    assert "Version 2 of m is <b>challenger</b>: not above." in text and "2 min 11 s" in text


def test_no_raw_key_is_shown_and_unknown_figures_come_last():
    text = page.render({**SUMMARY, "drift": {"psi": 0.5}}, [], "")
    assert "metadata_baseline" not in text and "promoted" not in re.sub("<style>.*</style>", "", text).replace(
        "Promoted", ""
    )
    assert text.index("Other figures") < text.index("drift.psi")
    assert text.index("How long did it take?") < text.index("Other figures")


def test_text_is_escaped_and_nothing_is_loaded():
    text = page.render(SUMMARY, [PICTURE], "<b>title</b>")
    assert "&lt;b&gt;title" in text and "chance is &lt;in&gt; the interval" in text
    assert "<script" not in text and re.findall('src="(.{10})', text) == ["data:image"]
    assert "bGFzdA==" in text and "Zmlyc3Q=" not in text  # the last picture of a notebook


def test_only_notebooks_that_ran_are_linked():
    text = page.render(SUMMARY, [], "")
    assert 'href="03_train.html"' in text and 'href="04_deploy.html"' in text and 'href="05_score.html"' not in text


def test_failed_cell_is_shown_with_its_traceback():
    failure = notebook_runner.Failure(4, "1 / 0  # <x>", "ZeroDivisionError")
    text = page.render(SUMMARY, [notebook_runner.Done("04_deploy", 70.0, "failed", failure)], "")
    assert "04_deploy stopped in cell 4" in text and "1 / 0  # &lt;x&gt;" in text and "ZeroDivisionError" in text


def test_page_without_a_training_has_no_figures_of_one():
    text = page.render({"notebooks": []}, [], "")
    assert "No model has been trained yet" in text and page_words.GOOD not in text
