"""Planted faults are marked, ordinary frames are not, and a night camera has its own cut-offs.

The real photographs are optional.
"""

import copy
import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageFilter

from device.simulation import porch
from lakevision.ingest import metadata, quality

REAL = sorted((Path(__file__).resolve().parents[3] / "shared" / "package_images").glob("*.jpg"))
NOW = datetime(2026, 5, 1, tzinfo=UTC)
real = pytest.mark.skipif(not REAL, reason="the real photographs are not beside this repository")


def row(image, device="porch", distance=np.nan):
    out = io.BytesIO()
    image.save(out, "PNG")
    photo = metadata.describe("x.png", out.getvalue(), NOW)
    return {
        "device": device,
        "side": (photo.width * photo.height) ** 0.5,
        "distance": distance,
        **{f"score_{issue}": value for issue, value in photo.scores.items()},
    }


def judged(rows, histories=None):
    return quality.judge(pd.DataFrame(rows), {} if histories is None else histories)


def frames(count, seed=7, size=(300, 300)):
    return [porch.picture(scene) for scene in porch.plan(count, seed, size)]


def issues(one):
    return {issue for issue in quality.ISSUES if one[f"is_{issue}_issue"]}


@pytest.fixture(scope="module")
def ordinary():
    return [row(image) for image in frames(60)]


PLANTED = {
    "dark": lambda image: image.point(lambda value: value // 16),
    "light": lambda image: image.point(lambda value: 250 + value // 60),
    "blurry": lambda image: image.filter(ImageFilter.GaussianBlur(4)),
    "low_information": lambda image: Image.new("RGB", image.size, (120, 130, 90)),
    "odd_size": lambda image: image.resize((60, 60)),
    "odd_aspect": lambda image: image.resize((900, 100)),
}


@pytest.mark.parametrize("issue", PLANTED)
def test_planted_fault_is_marked_and_ordinary_frames_not(ordinary, issue):
    found = judged(ordinary + [row(PLANTED[issue](frames(1)[0]))])
    assert issue in issues(found.iloc[-1])
    assert found[f"is_{issue}_issue"][:-1].sum() == 0, "an ordinary frame was marked"
    assert found[f"{issue}_score"].iloc[-1] <= found[f"{issue}_score"][:-1].min()
    assert found[[f"{name}_score" for name in quality.ISSUES]].stack().between(0, 1).all()


@pytest.mark.parametrize("issue", ["dark", "light", "blurry", "low_information", "odd_aspect"])
def test_global_cut_offs_apply_without_a_history(issue):
    first = frames(1)[0]
    found = judged([row(first), row(PLANTED[issue](first))])
    assert issues(found.iloc[0]) == set() and issue in issues(found.iloc[1])


def test_near_copy_is_marked_by_its_distance():
    found = judged([row(frames(1)[0], distance=distance) for distance in (np.nan, 0, 2, quality.NEAR_BITS)])
    assert list(found["is_near_duplicate_issue"]) == [False, True, True, True]
    assert list(found["near_duplicate_score"]) == [1.0, 0.0, 0.4, 0.8]


def test_night_camera_has_its_own_cut_off():
    """Frames with a fifth of the daylight are dark for any other camera. A lens cap is dark here, too."""
    nights = [row(image.point(lambda value: value // 5), "night") for image in frames(80, seed=9)]
    by_day = judged(nights[:20])
    assert by_day["is_dark_issue"].mean() > 0.5, "the global cut-off must mark them as dark"
    histories = {}
    judged(nights[:60], histories)
    cap = row(Image.effect_noise((300, 300), 2).point(lambda value: max(0, value - 126)).convert("RGB"), "night")
    found = judged(nights[60:] + [cap], histories)
    assert not found["is_dark_issue"][:-1].any() and found["is_dark_issue"].iloc[-1]
    assert histories["night"].count == 81


def test_history_in_pieces_equals_that_of_the_whole():
    rng = np.random.default_rng(1)
    rows = pd.DataFrame(
        {
            "device": "a",
            "side": 300.0,
            "distance": np.nan,
            **{f"score_{issue}": rng.uniform(0.2, 0.9, 4000) for issue in quality.GLOBAL},
        }
    )
    histories = {}
    for start in range(0, 4000, 500):
        quality.judge(rows[start : start + 500], histories)
    for issue in quality.GLOBAL:
        for share in (0.05, 0.5, 0.95):
            assert histories["a"].quantile(issue, share, np.empty(0)) == pytest.approx(
                np.quantile(rows[f"score_{issue}"], share), abs=0.03
            )


@real
def test_real_photographs_are_neither_dark_nor_blurry():
    """All 240, including the nights, judged as one camera. With a blur of 4 pixels they are blurry."""
    assert len(REAL) == 240
    rows = []
    for path in REAL:
        photo = metadata.describe(path.name, path.read_bytes(), NOW)
        rows.append(
            {
                "device": photo.device,
                "side": (photo.width * photo.height) ** 0.5,
                "distance": np.nan,
                **{f"score_{issue}": value for issue, value in photo.scores.items()},
            }
        )
    histories = {}
    found = judged(rows, histories)
    assert not found["is_dark_issue"].any() and not found["is_blurry_issue"].any()
    for path in REAL[::60]:
        with Image.open(path) as image:
            blurred = row(image.convert("RGB").filter(ImageFilter.GaussianBlur(4)), rows[0]["device"])
        assert "blurry" in issues(judged([blurred], copy.deepcopy(histories)).iloc[0]), path.name


def test_lens_cap_is_dark_whatever_the_history():
    frames = pd.DataFrame(
        {"device": "porch", "side": 600.0, "distance": np.nan, **{f"score_{issue}": 0.9 for issue in quality.GLOBAL}},
        index=range(80),
    )
    frames["score_dark"] = 0.0
    assert quality.judge(frames, {})["is_dark_issue"].all()
