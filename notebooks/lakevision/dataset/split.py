"""Places whole episodes in train, validation or test.

Frames of one camera are near copies of their neighbours. A split by rows would put near copies into train and test, and
the test would then measure memory. Every image is placed, and every placement has a reason. Placements are kept in the
table `splits` and are final: later photographs join the episode they belong to or start a new one. Photographs that
would join two splits are left out.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from lakevision.dataset import draw, episodes

if TYPE_CHECKING:
    from lakevision.platform.config_sections import Split

SPLIT_NAMES = ("train", "validation", "test")
COLUMNS = ["path", "sha256", "label", "episode", "split", "reason"]
BLOCKS = 8  # a class with fewer than three episodes is cut into this many blocks of time


class CannotSplit(ValueError):
    """There are too few images or classes for three splits; the message gives the counts and a remedy."""


def assign(
    images: pd.DataFrame, settings: Split, earlier: pd.DataFrame | None = None
) -> tuple[pd.DataFrame, list[str]]:
    """Places every image, by whole episodes.

    images: DataFrame of path, sha256, label, device, captured_at (datetime64), captured_from, and perhaps phash;
    earlier: placements of earlier runs with the same settings (path, episode, split, reason), which do not change.
    Returns a DataFrame of COLUMNS, one row for each image, and a list of warnings. The column split holds one of
    SPLIT_NAMES, or embargo, duplicate or unlabelled. Raises CannotSplit.
    """
    frame = images.sort_values(["captured_at", "path"], ignore_index=True)
    frame = frame.assign(episode="", split="", reason="", radius=settings.embargo_minutes)
    _recall(frame, earlier)
    frame["new"] = frame["split"] == ""
    frame.loc[frame["new"] & frame["label"].isna(), ["split", "reason"]] = ["unlabelled", "no label"]
    _set_copies_aside(frame)
    rows = frame[~frame["split"].isin(["unlabelled", "duplicate"])].reset_index(drop=True)
    _demand_classes(rows, len(images))
    warnings = _untimed(rows) + _join(rows, settings)
    _hold_out(rows, settings)
    _draw(rows, settings, episodes.timed(rows))
    _follow_looks(rows, settings)
    _draw(rows, settings, ~episodes.timed(rows))
    _embargo(rows)
    _demand_splits(rows, settings)
    rest = frame[frame["split"].isin(["unlabelled", "duplicate"])]
    return pd.concat([rows, rest])[COLUMNS].sort_values("path", ignore_index=True), warnings


def used(placed: pd.DataFrame) -> pd.DataFrame:
    """The rows of assign() that train, validate or test a model.

    An image that lost its label is not among them. Its placement is kept, because the image may be labelled again.
    """
    return placed[placed["split"].isin(SPLIT_NAMES) & placed["label"].notna()].reset_index(drop=True)


def scheme(settings: Split) -> str:
    """A short name of the settings that decide a split.

    Another seed, share or gap gives another split. Placements of different schemes must not be mixed.
    """
    return f"seed {settings.seed} {hashlib.sha256(repr(sorted(asdict(settings).items())).encode()).hexdigest()[:8]}"


def _recall(frame: pd.DataFrame, earlier: pd.DataFrame | None) -> None:
    """Writes earlier placements into frame. Images that were copies or had no label are placed again."""
    if earlier is None or not len(earlier):
        return
    columns = ["episode", "split", "reason"]
    kept = earlier[~earlier["split"].isin(["unlabelled", "duplicate"])].set_index("path")[columns]
    placed = frame["path"].isin(kept.index)
    frame.loc[placed, columns] = kept.reindex(frame.loc[placed, "path"]).to_numpy()


def _set_copies_aside(frame: pd.DataFrame) -> None:
    """Marks all but one of several files with the same bytes as duplicates; an image that is placed already stays."""
    order = frame[frame["split"] != "unlabelled"].sort_values("new", kind="stable")
    first = order.drop_duplicates("sha256").set_index("sha256")["path"]
    copies = order.index[order["sha256"].map(first) != order["path"]]
    frame.loc[copies, "reason"] = "the same bytes as " + frame.loc[copies, "sha256"].map(first)
    frame.loc[copies, "split"], frame.loc[copies, "episode"] = "duplicate", ""


def _demand_classes(rows: pd.DataFrame, count: int) -> None:
    counts = rows["label"].value_counts()
    if len(counts) < 2:
        raise CannotSplit(
            f"training needs two classes, found {dict(counts)} in {count} images. "
            "Put the images into class folders, or name them <...>_<label>.jpg (config: ingest.labels)"
        )
    if len(counts) > max(20, len(rows) // 3):
        raise CannotSplit(
            f"{len(counts)} labels for {len(rows)} images, such as {list(counts.index[:3])}: "
            "these names hold no labels. Put the images into class folders (config: ingest.labels)"
        )
    if counts.min() < 3:
        raise CannotSplit(
            f"class {counts.idxmin()!r} has {counts.min()} image(s); each class needs at least 3, one for each split"
        )


def _demand_splits(rows: pd.DataFrame, settings: Split) -> None:
    for label, of_label in rows.groupby("label"):
        missing = [split for split in SPLIT_NAMES if not (of_label["split"] == split).any()]
        if missing:
            raise CannotSplit(
                f"class {label!r} has no image in {' and '.join(missing)} "
                f"({dict(of_label['split'].value_counts())}): lower "
                f"split.embargo_minutes ({settings.embargo_minutes:g}) or split.episode_gap_minutes "
                f"({settings.episode_gap_minutes:g}), or hold out other cameras or days"
            )


def _untimed(rows: pd.DataFrame) -> list[str]:
    """A warning if some images have no capture time, because near copies among them may leak between splits."""
    untimed = 1 - episodes.timed(rows).mean()
    if untimed == 0:
        return []
    how = "can't be found, leakage is unchecked"
    if episodes.hashes(rows)[1].any():
        how = "were looked for by their looks alone, leakage is partly unchecked"
    return [f"{untimed:.0%} of the images have no capture time: near copies among them {how}"]


def _join(rows: pd.DataFrame, settings: Split) -> list[str]:
    """Gives every new row its episode, and its split if the episode was placed by an earlier run. Returns warnings."""
    pairs = episodes.links(rows, settings)
    new, split = rows["new"].to_numpy(), rows["split"].to_numpy()
    component = episodes.components(len(rows), pairs[new[pairs].all(1)])
    rows.loc[new, "episode"] = episodes.names(rows[new].assign(component=component[new]))
    touched: dict[int, list[int]] = {}  # component of new rows -> positions of the placed rows they are linked to
    for one, other in pairs[new[pairs].sum(1) == 1]:
        fresh, placed = (one, other) if new[one] else (other, one)
        if split[placed] in SPLIT_NAMES:
            touched.setdefault(component[fresh], []).append(placed)
    for number, placed_rows in touched.items():
        members, splits = new & (component == number), sorted(set(split[placed_rows]))
        if len(splits) > 1:
            rows.loc[members, ["split", "reason"]] = ["embargo", f"joins episodes of {' and '.join(splits)}"]
        else:
            episode = rows["episode"].iat[min(placed_rows)]
            rows.loc[members, ["episode", "split", "reason"]] = [
                episode,
                splits[0],
                f"belongs to {episode}, placed earlier",
            ]
    return _cut_rare(rows)


def _cut_rare(rows: pd.DataFrame) -> list[str]:
    """Cuts the new episodes of a class with fewer than three episodes into blocks of time. Returns warnings.

    Without the cut, the class would be missing in a split.
    """
    waiting = rows["split"] == ""
    whole = rows[waiting | rows["split"].isin(SPLIT_NAMES)].groupby("label")["episode"].nunique()
    warnings = [
        f"class {label!r} comes in {whole[label]} episode(s): they were cut into blocks of time, "
        "and neighbours on both sides of a cut are near copies"
        for label in whole.index[whole < 3]
    ]
    scarce = rows.loc[waiting & rows["label"].isin(whole.index[whole < 3]), "episode"].unique()
    for episode in scarce:
        members = rows[waiting & (rows["episode"] == episode)]
        # All classes get the same number of blocks, so that a block of several classes holds its share of each.
        by_label = members.groupby("label")["path"]
        block = by_label.cumcount() * BLOCKS // by_label.transform("size") + 1
        rows.loc[members.index, "episode"] = episode + " block " + block.astype(str)
        span = (members["captured_at"].max() - members["captured_at"].min()).total_seconds() / 60
        # An embargo as wide as a block would leave out the whole block.
        rows.loc[members.index, "radius"] = np.minimum(members["radius"], span / BLOCKS / 4)
    return warnings


def _hold_out(rows: pd.DataFrame, settings: Split) -> None:
    """Places the images of the held-out cameras and days in the test, and no other image."""
    days = rows["captured_at"].dt.strftime("%Y-%m-%d").where(episodes.timed(rows), "no time")
    held = pd.Series(False, rows.index)
    cameras = (rows["device"], settings.held_out_cameras, "split.held_out_cameras")
    for values, wanted, setting in (cameras, (days, settings.held_out_days, "split.held_out_days")):
        for value in wanted:
            chosen = values == value
            if not chosen.any():
                raise CannotSplit(
                    f"{setting}: there is no image of {value!r}; there are {sorted(values.dropna().unique())[:8]}"
                )
            held |= chosen
            free = chosen & (rows["split"] == "")
            rows.loc[free, ["split", "reason"]] = ["test", f"{setting} names {value}"]
            rows.loc[free, "episode"] += f" of {value}"  # an episode that runs into a held-out day ends there
    if held.any():
        astray = rows["new"] & rows["split"].isin(SPLIT_NAMES) & (held != (rows["split"] == "test"))
        rows.loc[astray, ["split", "reason"]] = ["embargo", "looks like an image on the other side of what is held out"]


def _follow_looks(rows: pd.DataFrame, settings: Split) -> None:
    """Places photographs without a capture time in the split of the photographs with a time that look the same."""
    waiting = (rows["split"] == "").to_numpy()
    nearby = episodes.lookalikes(rows, settings, rows["split"].where(rows["split"].isin(SPLIT_NAMES), ""))
    together = pd.Series(nearby)[waiting].groupby(rows.loc[waiting, "episode"]).agg(lambda sets: set().union(*sets))
    for episode, splits in together[together.map(len) > 0].items():
        members = waiting & (rows["episode"] == episode)
        rows.loc[members, ["split", "reason"]] = (
            [splits.pop(), "has no time, and looks like images there"]
            if len(splits) == 1
            else ["embargo", f"has no time, and looks like images of {' and '.join(sorted(splits))}"]
        )


def _draw(rows: pd.DataFrame, settings: Split, eligible: np.ndarray) -> None:
    """Draws the episodes without a split. eligible: bool (n,), the rows to draw now."""
    shares = {"train": 1 - settings.test - settings.validation, "validation": settings.validation}
    if not (settings.held_out_cameras or settings.held_out_days):
        shares["test"] = settings.test
    open_rows = rows["split"] == ""
    waiting = eligible & open_rows
    if not waiting.any():
        return
    classes = sorted(rows["label"].unique())

    def of_each_class(chosen: pd.Series) -> np.ndarray:
        return rows.loc[chosen, "label"].value_counts().reindex(classes, fill_value=0).to_numpy(float)

    sizes = rows[waiting].groupby(["episode", "label"]).size().unstack(fill_value=0)
    filled = {split: of_each_class(rows["split"] == split) for split in shares}
    total = sum(filled.values()) + of_each_class(open_rows)
    chosen = draw.place(sizes.reindex(columns=classes, fill_value=0), filled, total, shares, settings.seed)
    rows.loc[waiting, "reason"] = f"drawn with split.seed {settings.seed}"
    rows.loc[waiting, "split"] = rows.loc[waiting, "episode"].map(chosen)


def _embargo(rows: pd.DataFrame) -> None:
    """Leaves out new images that are too close in time to an image of another split.

    If both images are new, the image of train goes first, then the image of validation.
    """
    minutes = rows["captured_at"].to_numpy("datetime64[ns]").astype("int64") / 60e9
    # (split of the images that may be left out, splits of the images they are compared with, whether those are new)
    steps = [(split, [other for other in SPLIT_NAMES if other != split], False) for split in SPLIT_NAMES]
    steps += [("train", ["validation", "test"], True), ("validation", ["test"], True)]
    for index in rows[episodes.timed(rows)].groupby(rows["device"].fillna("unknown")).groups.values():
        index = index.to_numpy()[np.argsort(minutes[index], kind="stable")]
        for split, others, others_new in steps:
            group = rows.loc[index]
            moving = index[((group["split"] == split) & group["new"]).to_numpy()]
            staying = index[(group["split"].isin(others) & (group["new"] == others_new)).to_numpy()]
            if not len(moving) or not len(staying):
                continue
            place = np.searchsorted(minutes[staying], minutes[moving])
            for neighbour in (staying[np.clip(place - 1, 0, None)], staying[np.clip(place, None, len(staying) - 1)]):
                distance = np.abs(minutes[moving] - minutes[neighbour])
                near = distance < np.minimum(rows["radius"].to_numpy()[moving], rows["radius"].to_numpy()[neighbour])
                for one, other, apart in zip(moving[near], neighbour[near], distance[near], strict=True):
                    rows.loc[one, ["split", "reason"]] = [
                        "embargo",
                        f"{apart:.1f} minutes from an image of {rows['split'].iat[other]}",
                    ]
