"""The evaluation whole, on networks that are functions of the pixels, and the page that says it."""

import base64
import io
import re

import numpy as np
import pytest
from PIL import Image

from lakevision.evaluation import report


@pytest.mark.slow
def test_page_is_complete_and_self_contained(whole):
    cfg, evaluation, material = whole
    page = report.render(cfg, evaluation, material, {"images": "<many>"}, "today")
    assert "<script" not in page and not re.findall(r'(?:src|href)="(?!data:image/png;base64,)', page)
    for heading in (
        "What it was trained on",
        "Does it see the object?",
        "Metrics",
        "Errors, thresholds, calibration",
        "Slices, worst first",
        "The worst errors",
        "Against the champion",
        "What was not checked",
    ):
        assert f"<h2>{heading}</h2>" in page
    assert "&lt;many&gt;" in page and "kind &lt;a&gt;" in page and "kind <" not in page  # names are text, never markup
    for picture in re.findall(r'base64,([^"]+)"', page):
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()
    assert page.index(evaluation.verdict) < 6000 and all(
        reason.replace("'", "&#x27;") in page for reason in evaluation.reasons
    )


def test_ten_classes_without_times_list_the_unchecked(ten):
    _, evaluation, material = ten
    assert (
        np.shape(evaluation.confusion) == (10, 10)
        and evaluation.accuracy > 0.8
        and evaluation.cheapest_threshold is None
    )
    assert evaluation.verdict == "weak" and any("leakage is unchecked" in reason for reason in evaluation.reasons)
    said = " ".join(evaluation.unchecked)
    for what in (
        "day and hour",
        "EXIF",
        "nearest image in time",
        "context-only control",
        "swap test",
        "light",
        "brightness",
    ):
        assert what in said
    assert evaluation.leakage == {"random_split": None, "episodes": None} and evaluation.nearest_baseline is None
