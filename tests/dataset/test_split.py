"""Episodes stay whole, near copies stay in one split, placed images never move, and every image gets a reason."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from lakevision.dataset import episodes, split
from lakevision.platform import config

SETTINGS = config.load("local").split


def images(count=300, per_episode=5, devices=3, seed=0, source="exif"):
    rng = np.random.default_rng(seed)
    start = pd.Timestamp("2026-03-01")
    rows = []
    for index in range(count):
        episode = index // per_episode
        at = start + pd.Timedelta(hours=episode) + pd.Timedelta(seconds=30 * (index % per_episode))
        rows.append(
            (f"p{index}.jpg", f"{rng.integers(2**60):x}", "ab"[episode % 2], f"cam{episode % devices}", at, source)
        )
    return pd.DataFrame(rows, columns=["path", "sha256", "label", "device", "captured_at", "captured_from"])


def test_episodes_stay_whole_and_each_split_has_all_classes():
    placements, warnings = split.assign(images(), SETTINGS)
    assert not warnings and len(split.used(placements)) == 300
    assert placements.groupby("episode")["split"].nunique().max() == 1
    assert placements.groupby("split")["label"].nunique().to_dict() == {"train": 2, "validation": 2, "test": 2}
    assert placements["split"].value_counts(normalize=True)["test"] == pytest.approx(SETTINGS.test, abs=0.05)


def test_order_of_rows_changes_nothing():
    one = split.assign(images(), SETTINGS)[0].set_index("path")["split"]
    other = split.assign(images().sample(frac=1, random_state=1), SETTINGS)[0].set_index("path")["split"]
    assert one.sort_index().equals(other.sort_index())


def test_copies_are_marked_as_duplicates():
    doubled = pd.concat([images(), images().assign(path=lambda rows: "copy/" + rows["path"])])
    placements, warnings = split.assign(doubled, SETTINGS)
    assert len(placements) == 600 and split.used(placements)["sha256"].is_unique and len(split.used(placements)) == 300
    assert placements.loc[placements["split"] == "duplicate", "reason"].str.startswith("the same bytes as ").all()
    assert not warnings and (placements["split"] == "duplicate").sum() == 300


def test_images_without_time_are_apart_and_give_a_warning():
    placements, warnings = split.assign(images(source="file"), SETTINGS)
    assert placements["episode"].nunique() == 300
    assert any("leakage is unchecked" in warning for warning in warnings)


def test_long_burst_is_cut_into_blocks_with_a_warning():
    burst = images(60, per_episode=30, devices=1)
    placements, warnings = split.assign(burst, SETTINGS)
    assert set(split.SPLIT_NAMES) <= set(placements["split"]) and (placements["split"] == "embargo").mean() < 0.3
    assert sum("cut into blocks" in warning for warning in warnings) == 2


@pytest.mark.parametrize(
    "change, message",
    [
        pytest.param(lambda rows: rows.assign(label="a"), "needs two classes", id="one class"),
        pytest.param(lambda rows: rows.assign(label=None), "needs two classes", id="no labels"),
        pytest.param(lambda rows: rows.assign(label=rows["path"]), "hold no labels", id="a label for each image"),
        pytest.param(
            lambda rows: rows.assign(label=["c"] + list(rows["label"][1:])),
            "'c' has 1 image",
            id="a single-image class",
        ),
    ],
)
def test_impossible_split_gives_the_reason(change, message):
    with pytest.raises(split.CannotSplit, match=message):
        split.assign(change(images()), SETTINGS)


def random_images(seed):
    """A difficult set: regular and irregular cameras, copies, labels that change in a burst, images without a time."""
    rng = np.random.default_rng(seed)
    frames, classes = [], int(rng.integers(2, 5))
    for camera in range(rng.integers(1, 5)):
        pauses = rng.choice([0.5, 2, 5, 12, 25, 90, 600], rng.integers(20, 90), p=rng.dirichlet(np.ones(7)))  # minutes
        at = pd.Timestamp("2026-03-01") + pd.to_timedelta(
            np.cumsum(pauses * rng.uniform(0.5, 1.5, len(pauses))), unit="min"
        )
        label = np.cumsum(rng.random(len(at)) < 0.2) % classes
        look = np.cumsum(rng.random(len(at)) < 0.3)
        frames.append(
            pd.DataFrame(
                {"device": f"cam{camera}", "captured_at": at, "label": label, "phash": look * 0x0F0F0F0F0F0F0F + camera}
            )
        )
    rows = pd.concat(frames, ignore_index=True)
    rows["captured_from"] = np.where(rng.random(len(rows)) < rng.choice([0, 0, 0.2]), "file", "exif")
    rows["label"] = rows["label"].map("abcd".__getitem__).where(rng.random(len(rows)) > 0.03, None)
    rows["sha256"] = [f"{value:016x}" for value in rng.integers(0, 40 * len(rows), len(rows))]  # some bytes come twice
    return rows.assign(path=[f"p{index}.jpg" for index in range(len(rows))])


def leaks(rows, placed, settings):
    """Pairs of images in two splits: of one camera and closer than the embargo, or without a time and alike."""
    joined = split.used(placed)[["path", "split", "episode"]].merge(rows, on="path")
    timed = joined[joined["captured_from"] != "file"]
    found = []
    for _, group in timed.groupby("device"):
        minutes = group["captured_at"].astype("int64").to_numpy() / 60e9
        placements = group["split"].to_numpy()
        limit = 0 if group["episode"].str.contains(" block ").any() else settings.embargo_minutes
        near = (np.abs(minutes[:, None] - minutes) < limit) & (placements[:, None] != placements)
        found += list(zip(*np.nonzero(near)))
    looks, known = episodes.hashes(joined)
    untimed = ~episodes.timed(joined)
    apart = episodes.hamming(looks[untimed][:, None], looks[None, :])
    return found, (apart <= settings.near_duplicate_bits) & (
        joined["split"].to_numpy()[untimed][:, None] != joined["split"].to_numpy()
    )


SEEDS = range(24)
TOO_FEW = (3, 15)  # these seeds draw a set of which the embargo leaves too few images of a class


def random_settings(seed):
    return replace(SETTINGS, embargo_minutes=float(np.random.default_rng(seed).choice([0, 5, 15, 60])))


@pytest.mark.parametrize("seed", TOO_FEW)
def test_drawn_set_with_too_few_images_is_refused(seed):
    with pytest.raises(split.CannotSplit):
        split.assign(random_images(seed), random_settings(seed))


@pytest.mark.parametrize("seed", [seed for seed in range(24 + len(TOO_FEW)) if seed not in TOO_FEW])
def test_all_images_are_placed_and_nothing_leaks(seed):
    rows, settings = random_images(seed), random_settings(seed)
    placed, _ = split.assign(rows, settings)
    assert sorted(placed["path"]) == sorted(rows["path"]) and (placed["reason"] != "").all()
    assert set(placed["split"]) <= {*split.SPLIT_NAMES, "embargo", "duplicate", "unlabelled"}
    assert split.used(placed).groupby("episode")["split"].nunique().max() == 1
    close, alike = leaks(rows, placed, settings)
    assert not close
    if not placed["episode"].str.contains(" block ").any():
        assert not alike.any()
    assert split.used(placed).groupby("label")["split"].nunique().eq(3).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_new_images_in_any_order_move_no_placed_image(seed):
    rows, rng = random_images(seed), np.random.default_rng(seed)
    pieces = [
        rows.iloc[np.sort(part)] for part in np.array_split(rng.permutation(len(rows)), 3)
    ]  # they fall between and into the earlier ones
    if seed % 2:
        pieces = np.array_split(rows.sort_values("captured_at"), 3)  # as cameras deliver
    seen, earlier = None, None
    for piece in pieces:
        seen = piece if seen is None else pd.concat([seen, piece])
        try:
            placed, _ = split.assign(seen.sample(frac=1, random_state=seed), SETTINGS, earlier)
        except split.CannotSplit:
            continue
        assert sorted(placed["path"]) == sorted(seen["path"])
        assert split.used(placed).groupby("episode")["split"].nunique().max() == 1
        close, _ = leaks(seen, placed, SETTINGS)
        assert not close
        again, _ = split.assign(seen, SETTINGS, earlier)
        assert again.set_index("path")["split"].equals(placed.set_index("path")["split"])
        if earlier is not None:
            before, now = (split.used(frame).set_index("path")["split"] for frame in (earlier, placed))
            assert now.reindex(before.index).equals(before)
        earlier = placed
    assert earlier is not None, "too few images of a class for three splits"


def test_episode_that_joins_two_splits_is_left_out():
    rows = images()
    placed, _ = split.assign(rows, SETTINGS)
    placements = placed.set_index("path")["split"]
    one, other = next(
        (one, one + 15)
        for one in range(0, 280)
        if one % 5 == 4 and placements[f"p{one}.jpg"] != placements[f"p{one + 15}.jpg"]
    )
    start, end = rows["captured_at"].iloc[one], rows["captured_at"].iloc[other]
    bridge = pd.DataFrame(
        {
            "path": [f"bridge{n}.jpg" for n in range(60)],
            "sha256": [f"bridge {n}" for n in range(60)],
            "label": "a",
            "captured_from": "exif",
            "device": rows["device"].iloc[one],
            "captured_at": pd.date_range(start, end, 62)[1:-1],
        }
    )
    both, _ = split.assign(pd.concat([rows, bridge]), SETTINGS, placed)
    both = both.set_index("path")
    assert (both.loc[bridge["path"], "split"] == "embargo").all() and both.loc["bridge30.jpg", "reason"].startswith(
        "joins episodes of"
    )
    assert both.loc[placements.index, "split"].equals(placements)


def test_growing_episode_keeps_its_split():
    rows = images()
    placed, _ = split.assign(rows, SETTINGS)
    late = rows.groupby(rows.index // 5).last()
    late = late.assign(
        path="late" + late["path"],
        sha256="late" + late["sha256"],
        captured_at=late["captured_at"] + pd.Timedelta(minutes=3),
    )
    both = split.assign(pd.concat([rows, late]), SETTINGS, placed)[0].set_index("path")["split"]
    assert all(both["late" + path] == both[path] for path in late["path"].str.removeprefix("late"))


def test_camera_without_pauses_is_cut_with_an_embargo():
    at = pd.date_range("2026-03-01", periods=14 * 288, freq="5min")
    rows = pd.DataFrame(
        {
            "path": [f"p{n}" for n in range(len(at))],
            "sha256": [f"{n:x}" for n in range(len(at))],
            "captured_at": at,
            "captured_from": "exif",
            "device": "one",
            "label": np.where(np.arange(len(at)) // 7 % 2, "a", "b"),
        }
    )
    placed, warnings = split.assign(rows, SETTINGS)
    assert not warnings and placed["episode"].nunique() == 28
    assert placed["split"].value_counts(normalize=True)["test"] == pytest.approx(SETTINGS.test, abs=0.06)
    assert 0 < (placed["split"] == "embargo").mean() < 0.02 and not leaks(rows, placed, SETTINGS)[0]


@pytest.mark.parametrize(
    "held, of",
    [
        pytest.param({"held_out_cameras": ("cam1",)}, lambda rows: rows["device"] == "cam1", id="camera"),
        pytest.param({"held_out_days": ("2026-03-02",)}, lambda rows: rows["captured_at"].dt.day == 2, id="day"),
    ],
)
def test_held_out_cameras_and_days_form_the_test(held, of):
    rows = images(per_episode=6)  # another rhythm than the cameras': each has both labels
    placed = split.assign(rows, replace(SETTINGS, **held))[0].set_index("path").loc[rows["path"]].reset_index()
    assert ((placed["split"] == "test") == of(rows).to_numpy())[placed["split"] != "embargo"].all()
    assert placed.groupby("split")["label"].nunique().to_dict() == {"train": 2, "validation": 2, "test": 2}


def test_unknown_held_out_camera_raises_an_error():
    with pytest.raises(split.CannotSplit, match="no image of 'porch-9'.*'cam0'"):
        split.assign(images(), replace(SETTINGS, held_out_cameras=("porch-9",)))


def test_near_copies_without_time_stay_together():
    rng = np.random.default_rng(1)
    rows = images(source="file").assign(phash=np.repeat(rng.integers(-(2**63), 2**63, 100), 3))
    rows["phash"] ^= rng.choice([0, 1, 1 << 40], 300)  # a bit here and there: encoders differ
    placed, warnings = split.assign(rows, SETTINGS)
    assert (
        placed["episode"].nunique() == 100
        and split.used(placed).groupby(np.arange(300) // 3)["split"].nunique().max() <= 3
    )
    by_look = placed.set_index("path").loc[rows["path"]].groupby(np.arange(300) // 3)["split"].nunique()
    assert by_look.max() == 1 and any("looked for by their looks alone" in warning for warning in warnings)


def test_another_seed_gives_another_scheme_and_split():
    other = replace(SETTINGS, seed=12)
    assert split.scheme(other) != split.scheme(SETTINGS) == split.scheme(config.load("local").split)
    assert not split.assign(images(), SETTINGS)[0]["split"].equals(split.assign(images(), other)[0]["split"])


def test_image_labelled_later_joins_its_episode():
    rows = images()
    unlabelled = rows.assign(label=rows["label"].where(rows.index % 5 != 2, None))
    placed, _ = split.assign(unlabelled, SETTINGS)
    assert (placed["split"] == "unlabelled").sum() == 60
    later = split.assign(rows, SETTINGS, placed)[0].set_index("path")["split"]
    assert (later.loc[rows["path"]].groupby(np.arange(300) // 5).nunique() == 1).all() and set(later) == set(
        split.SPLIT_NAMES
    )


def test_relabelled_image_keeps_its_split():
    rows = images()
    placed, _ = split.assign(rows, SETTINGS)
    without, _ = split.assign(rows.assign(label=rows["label"].where(rows.index % 7 != 0, None)), SETTINGS, placed)
    assert without["split"].equals(placed["split"]) and len(split.used(without)) == 300 - 43
    again, _ = split.assign(rows.assign(label=rows["label"].where(rows.index % 7 != 0, "a")), SETTINGS, without)
    assert again["split"].equals(placed["split"]) and len(split.used(again)) == 300
