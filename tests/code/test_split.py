"""No episode is on two sides, every class is on all three, and what can't be known is said."""

import numpy as np
import pandas as pd
import pytest

from lakevision import config, split

SETTINGS = config.load("local").split


def images(count=300, per_episode=5, devices=3, seed=0, source="exif"):
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2026-03-01")
    rows = []
    for index in range(count):
        episode = index // per_episode
        at = start + pd.Timedelta(hours=episode) + pd.Timedelta(seconds=30 * (index % per_episode))
        rows.append((f"p{index}.jpg", f"{rng.integers(2**60):x}", "ab"[episode % 2], f"cam{episode % devices}", at, source))
    return pd.DataFrame(rows, columns=["path", "sha256", "label", "device", "captured_at", "captured_from"])


def test_episodes_stay_whole_and_classes_are_everywhere():
    sides, warnings = split.assign(images(), SETTINGS)
    assert not warnings and len(sides) == 300
    assert sides.groupby("episode")["split"].nunique().max() == 1
    assert sides.groupby("split")["label"].nunique().to_dict() == {"train": 2, "validation": 2, "test": 2}
    assert sides["split"].value_counts(normalize=True)["test"] == pytest.approx(SETTINGS.test, abs=0.05)


def test_the_order_of_rows_changes_nothing():
    one = split.assign(images(), SETTINGS)[0].set_index("path")["split"]
    other = split.assign(images().sample(frac=1, random_state=1), SETTINGS)[0].set_index("path")["split"]
    assert one.sort_index().equals(other.sort_index())


def test_second_copies_are_left_out_and_counted():
    doubled = pd.concat([images(), images().assign(path=lambda rows: "copy/" + rows["path"])])
    sides, warnings = split.assign(doubled, SETTINGS)
    assert len(sides) == 300 and sides["sha256"].is_unique
    assert any("300 second copies" in warning for warning in warnings)


def test_images_without_a_time_stand_alone_and_leakage_is_said_to_be_unchecked():
    sides, warnings = split.assign(images(source="file"), SETTINGS)
    assert sides["episode"].nunique() == 300
    assert any("leakage is unchecked" in warning for warning in warnings)


def test_one_long_burst_is_cut_into_blocks_and_said_so():
    burst = images(60, per_episode=30, devices=1)
    sides, warnings = split.assign(burst, SETTINGS)
    assert set(sides["split"]) == set(split.SIDES)
    assert sum("cut into blocks" in warning for warning in warnings) == 2


@pytest.mark.parametrize("change, message", [
    pytest.param(lambda rows: rows.assign(label="a"), "needs two classes", id="one class"),
    pytest.param(lambda rows: rows.assign(label=None), "needs two classes", id="no labels"),
    pytest.param(lambda rows: rows.assign(label=rows["path"]), "hold no labels", id="a label for each image"),
    pytest.param(lambda rows: rows.assign(label=["c"] + list(rows["label"][1:])), "'c' has 1 image", id="a single-image class"),
])
def test_what_can_not_be_split_says_why(change, message):
    with pytest.raises(split.CannotSplit, match=message):
        split.assign(change(images()), SETTINGS)
