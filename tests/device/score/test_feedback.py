"""Images are sent for a reason, within the day's budget."""

from types import SimpleNamespace

import bundles
import pytest
from steps import images, lines, ready, shots

from device.score import feedback

NEAR = 120  # the brightness at the threshold of the tests' models
CALM = {"brightness": 0.5, "contrast": 0.5}  # figures that give no reason


def settings(**changes):
    """A [feedback] section that gives no reason but the changed ones."""
    values = {"margin": 0.0, "dark": 0.0, "bright": 1.0, "flat": 0.0, "drift": 1.0, "sample": 0.0, **changes}
    return SimpleNamespace(**values)


def test_only_images_with_a_reason_are_sent(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "chosen", "sample": 0.0, "flat": 0.0, "drift": 1.0, "margin": 0.2})
    shots(scoring, 60, 200, NEAR, 60, 3, 200)
    scoring.run("score", "--once")
    scored = lines(scoring)
    assert [line["why"] for line in scored] == [[], [], ["near"], [], ["quality"], []]
    assert [line["sent"] for line in scored] == ["figures", "figures", "image", "figures", "image", "figures"]
    assert images(scoring) == [scored[2]["image"], scored[4]["image"]]
    counters = scoring.counters("score")
    assert counters["figures_only"] == 4 and counters["sent_home"] == 2


def test_brightness_far_from_its_mean_is_drift(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "chosen", "sample": 0.0, "flat": 0.0, "margin": 0.0, "drift": 0.25})
    shots(scoring, *[60] * 6, 180, *[60] * 3)
    scoring.run("score", "--once")
    assert [line["why"] for line in lines(scoring)] == [[]] * 6 + [["drift"]] + [[]] * 3


def test_policy_none_sends_no_image_and_all_sends_each(scoring):
    ready(scoring)
    scoring.configure(feedback={"send": "none"})
    shots(scoring, 60, NEAR)
    scoring.run("score", "--once")
    assert [line["sent"] for line in lines(scoring)] == ["figures"] * 2 and images(scoring) == []
    scoring.configure(feedback={"send": "all"})
    shots(scoring, 60, NEAR)
    scoring.run("score", "--once")
    assert [line["sent"] for line in lines(scoring)] == ["figures"] * 2 + ["image"] * 2 and len(images(scoring)) == 2


def test_budget_survives_restarts_and_renews_each_day(scoring):
    ready(scoring)
    size = len(bundles.photo(NEAR)) + 700  # with EXIF
    scoring.configure(
        feedback={
            "send": "chosen",
            "margin": 0.3,
            "sample": 0.0,
            "flat": 0.0,
            "drift": 1.0,
            "max_mb_a_day": 2.5 * size / 1e6,
        }
    )
    for _ in range(3):
        shots(scoring, NEAR, NEAR)
        scoring.run("score", "--once")
    scored = lines(scoring)
    assert [line["sent"] for line in scored] == ["image"] * 2 + ["figures"] * 4
    assert all(line["why"] == ["near"] for line in scored)
    assert scoring.counters("score")["spent"] <= 2.5 * size
    shots(scoring, NEAR)
    tomorrow = "import datetime, device.clock as c; true = c.now; c.now = lambda: true() + datetime.timedelta(days=1)"
    scoring.run("score", "--once", driver=tomorrow)
    assert [line["sent"] for line in lines(scoring)][-1] == "image"


def test_sample_is_the_configured_share_of_digests():
    choice = feedback.Choice(settings(sample=0.25))
    digests = [f"{number * 2654435761 % 2**32:08x}" for number in range(4000)]
    chosen = [bool(choice.reasons([0.0, 1.0], 0.5, CALM, digest)) for digest in digests]
    assert 900 < sum(chosen) < 1100


@pytest.mark.parametrize(
    "scores, threshold, near",
    [
        ([0.45, 0.55], 0.5, True),
        ([0.2, 0.8], 0.5, False),
        ([0.2, 0.8], 0.75, True),
        ([0.4, 0.35, 0.25], 0.5, True),
        ([0.9, 0.05, 0.05], 0.5, False),
    ],
    ids=str,
)
def test_near_means_within_margin_of_the_decision(scores, threshold, near):
    reasons = feedback.Choice(settings(margin=0.1)).reasons(scores, threshold, CALM, "ffffffff")
    assert reasons == (["near"] if near else [])


def test_light_is_mean_and_deviation_of_luma():
    assert feedback.light(bytes([255, 0, 0] * 16), 4) == {"brightness": round(76 / 255, 4), "contrast": 0.0}
    assert feedback.light(bytes([0, 0, 0] * 8 + [255] * 24), 4) == {"brightness": 0.5, "contrast": 0.5}
