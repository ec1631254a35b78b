"""Episodes: links between near copies, their names, and look-alikes without a capture time."""

from dataclasses import replace

import numpy as np
import pandas as pd

from lakevision.dataset import episodes
from lakevision.platform import config

SETTINGS = replace(config.load("local").split, episode_gap_minutes=10.0, episode_hours=12.0, near_duplicate_bits=4)


def frames(minutes, device="one", phash=None, source="exif"):
    return pd.DataFrame(
        {
            "device": device,
            "captured_at": pd.Timestamp("2026-03-01") + pd.to_timedelta(minutes, unit="min"),
            "captured_from": source,
            "phash": phash if phash is not None else np.arange(len(minutes)) * 0x0F0F0F0F0F0F,
            "sha256": [f"{number:064x}" for number in range(len(minutes))],
        }
    )


def numbers(rows):
    return episodes.components(len(rows), episodes.links(rows, SETTINGS)).tolist()


def test_frames_closer_than_the_gap_are_one_episode():
    assert numbers(frames([0, 9, 18, 40])) == [0, 0, 0, 1]


def test_frames_that_look_the_same_may_be_further_apart():
    assert numbers(frames([0, 25, 60], phash=[7, 6, 7])) == [0, 0, 1]


def test_frames_of_two_cameras_are_not_linked():
    assert numbers(frames([0, 1], device=["one", "two"])) == [0, 1]


def test_frames_without_time_are_linked_by_looks_alone():
    assert numbers(frames([0, 0, 0], phash=[1, -1, 3], source="file")) == [0, 1, 0]


def test_lookalikes_give_the_splits_of_the_dated_images():
    rows = frames([0, 0, 0], phash=[1, -1, 3], source=["exif", "exif", "file"])
    assert episodes.lookalikes(rows, SETTINGS, np.array(["train", "test", ""])) == [set(), set(), {"train"}]


def test_episode_is_named_after_its_first_frame_or_digest():
    rows = frames([5, 0, 0], source=["exif", "exif", "file"]).assign(component=[0, 0, 1])
    assert episodes.names(rows).tolist() == ["one 2026-03-01T00:00:00"] * 2 + ["image " + "0" * 16]


def test_hash_distances_agree_with_every_pair_compared():
    rng = np.random.default_rng(2)
    looks = rng.integers(0, 2**63, 150).astype(np.uint64).repeat(2)
    for row in range(0, 300, 2):
        for bit in rng.choice(64, rng.integers(0, 9), replace=False):
            looks[row] ^= np.uint64(1) << np.uint64(bit)
    known = rng.random(300) < 0.9
    brute = np.array([[bin(int(a) ^ int(b)).count("1") for b in looks] for a in looks])
    assert (episodes.hamming(looks[:, None], looks) == brute).all()
    near = np.argwhere(np.triu((brute <= 4) & known[:, None] & known, 1))
    assert (episodes.components(300, near) == episodes.components(300, episodes.near_duplicates(looks, known, 4))).all()
