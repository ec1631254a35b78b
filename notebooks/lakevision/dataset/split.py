"""Which images a model may learn from: whole episodes go to train, validation or test, never single rows.

Frames of one camera are near copies of their neighbours. A split by rows puts copies on both sides and then measures memory.
Every image is placed, with the reason. A placement is kept in the table `splits` and holds for good: photographs that come later
join the episode they belong to, or make new ones; what would join two sides is left out.
"""

import hashlib
from dataclasses import asdict

import numpy as np
import pandas as pd

from lakevision.dataset import episodes

SPLIT_NAMES = ("train", "validation", "test")
COLUMNS = ["path", "sha256", "label", "episode", "split", "reason"]
BLOCKS = 8  # a class that comes in fewer than three episodes is cut into this many blocks of time


class CannotSplit(ValueError):
    """There are too few images or classes for three sides; the message says what is there and what to do."""


def assign(images, settings, earlier=None):
    """Places every image, by whole episodes.

    images: DataFrame of path, sha256, label, device, captured_at (datetime64), captured_from, and phash where it is known; settings: Config.split;
    earlier: placements of earlier runs with the same settings (path, episode, split), which stay as they are.
    Returns (DataFrame of COLUMNS, one row an image; list of warnings in words). split is one of SPLIT_NAMES, or embargo, duplicate, unlabelled.
    Raises CannotSplit.
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
    _demand_sides(rows, settings)
    rest = frame[frame["split"].isin(["unlabelled", "duplicate"])]
    return pd.concat([rows, rest])[COLUMNS].sort_values("path", ignore_index=True), warnings


def used(placed):
    """The rows of assign() that are learnt from or judged on. An image that lost its label keeps its side, for it may get another."""
    return placed[placed["split"].isin(SPLIT_NAMES) & placed["label"].notna()].reset_index(drop=True)


def scheme(settings):
    """A short name of what decides a split: another seed, share or gap is another split, and the two must not be mixed. settings: Config.split."""
    return f"seed {settings.seed} {hashlib.sha256(repr(sorted(asdict(settings).items())).encode()).hexdigest()[:8]}"


def _recall(frame, earlier):
    """Writes the placements of earlier runs into frame. What was a copy, or had no label, is placed anew."""
    if earlier is None or not len(earlier):
        return
    kept = earlier[~earlier["split"].isin(["unlabelled", "duplicate"])].set_index("path")[
        ["episode", "split", "reason"]
    ]
    known = frame["path"].isin(kept.index)
    frame.loc[known, ["episode", "split", "reason"]] = kept.reindex(frame.loc[known, "path"]).to_numpy()


def _set_copies_aside(frame):
    """The same bytes count once: the copy that has been placed already, else the first."""
    order = frame[frame["split"] != "unlabelled"].sort_values("new", kind="stable")
    first = order.drop_duplicates("sha256").set_index("sha256")["path"]
    copies = order.index[order["sha256"].map(first) != order["path"]]
    frame.loc[copies, "reason"] = "the same bytes as " + frame.loc[copies, "sha256"].map(first)
    frame.loc[copies, "split"], frame.loc[copies, "episode"] = "duplicate", ""


def _demand_classes(rows, count):
    counts = rows["label"].value_counts()
    if len(counts) < 2:
        raise CannotSplit(
            f"training needs two classes, found {dict(counts)} in {count} images. "
            "Put the images into class folders, or name them <...>_<label>.jpg (config: ingest.labels)"
        )
    if len(counts) > max(20, len(rows) // 3):
        raise CannotSplit(
            f"{len(counts)} labels for {len(rows)} images, such as {list(counts.index[:3])}: these names hold no labels. "
            "Put the images into class folders (config: ingest.labels)"
        )
    if counts.min() < 3:
        raise CannotSplit(
            f"class {counts.idxmin()!r} has {counts.min()} image(s); each class needs 3 at least, one for each side"
        )


def _demand_sides(rows, settings):
    for label, of_label in rows.groupby("label"):
        missing = [side for side in SPLIT_NAMES if not (of_label["split"] == side).any()]
        if missing:
            raise CannotSplit(
                f"class {label!r} has no image in {' and '.join(missing)} ({dict(of_label['split'].value_counts())}): lower "
                f"split.embargo_minutes ({settings.embargo_minutes:g}) or split.episode_gap_minutes "
                f"({settings.episode_gap_minutes:g}), or hold out other cameras or days"
            )


def _untimed(rows):
    """What can't be ruled out where images have no capture time: a list of warnings."""
    untimed = 1 - episodes.timed(rows).mean()
    if untimed == 0:
        return []
    how = "can't be found, leakage is unchecked"
    if episodes.hashes(rows)[1].any():
        how = "were looked for by their looks alone, leakage is partly unchecked"
    return [f"{untimed:.0%} of the images have no capture time: near copies among them {how}"]


def _join(rows, settings):
    """Gives every new row its episode and, where that has been placed in an earlier run, its side. Returns warnings."""
    pairs = episodes.links(rows, settings)
    new, side = rows["new"].to_numpy(), rows["split"].to_numpy()
    component = episodes.components(len(rows), pairs[new[pairs].all(1)])
    rows.loc[new, "episode"] = episodes.names(rows[new].assign(component=component[new]))
    touched = {}  # component of new rows -> positions of the placed rows that they are linked to
    for one, other in pairs[new[pairs].sum(1) == 1]:
        fresh, placed = (one, other) if new[one] else (other, one)
        if side[placed] in SPLIT_NAMES:
            touched.setdefault(component[fresh], []).append(placed)
    for number, placed in touched.items():
        members, placements = new & (component == number), sorted(set(side[placed]))
        if len(placements) > 1:
            rows.loc[members, ["split", "reason"]] = ["embargo", f"joins episodes of {' and '.join(placements)}"]
        else:
            episode = rows["episode"].iat[min(placed)]
            rows.loc[members, ["episode", "split", "reason"]] = [
                episode,
                placements[0],
                f"belongs to {episode}, placed earlier",
            ]
    return _cut_rare(rows)


def _cut_rare(rows):
    """Cuts the new episodes of a class that comes in fewer than three into blocks of time: else it would be missing on a side. Returns warnings."""
    warnings = []
    waiting = rows["split"] == ""
    whole = rows[waiting | rows["split"].isin(SPLIT_NAMES)].groupby("label")["episode"].nunique()
    for label in whole.index[whole < 3]:
        warnings.append(
            f"class {label!r} comes in {whole[label]} episode(s): they were cut into blocks of time, and neighbours on both sides "
            "of a cut are near copies"
        )
    scarce = rows.loc[waiting & rows["label"].isin(whole.index[whole < 3]), "episode"].unique()
    for episode in scarce:
        members = rows[waiting & (rows["episode"] == episode)]
        # Each class is cut into as many, so that a block of several classes holds its share of all of them.
        by_label = members.groupby("label")["path"]
        block = by_label.cumcount() * BLOCKS // by_label.transform("size") + 1
        rows.loc[members.index, "episode"] = episode + " block " + block.astype(str)
        span = (members["captured_at"].max() - members["captured_at"].min()).total_seconds() / 60
        rows.loc[members.index, "radius"] = np.minimum(
            members["radius"], span / BLOCKS / 4
        )  # an embargo as wide as a block would leave nothing
    return warnings


def _hold_out(rows, settings):
    """Everything of the held-out cameras and days is for the test, and nothing else is."""
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


def _follow_looks(rows, settings):
    """Photographs with no time go where those with one that look the same are."""
    waiting = (rows["split"] == "").to_numpy()
    met = episodes.lookalikes(rows, settings, rows["split"].where(rows["split"].isin(SPLIT_NAMES), ""))
    together = pd.Series(met)[waiting].groupby(rows.loc[waiting, "episode"]).agg(lambda sets: set().union(*sets))
    for episode, placements in together[together.map(len) > 0].items():
        members = waiting & (rows["episode"] == episode)
        rows.loc[members, ["split", "reason"]] = (
            [placements.pop(), "has no time, and looks like images there"]
            if len(placements) == 1
            else ["embargo", f"has no time, and looks like images of {' and '.join(sorted(placements))}"]
        )


def _draw(rows, settings, which):
    """Gives each new episode to the side that is filled least (D'Hondt's rule), class by class; a hash of its name decides who comes first.

    The hash depends on the seed and on the episode alone, so the order of the rows changes nothing. which: bool, the rows whose turn it is.
    """
    shares = {"train": 1 - settings.test - settings.validation, "validation": settings.validation}
    if not (settings.held_out_cameras or settings.held_out_days):
        shares["test"] = settings.test
    waiting = which & (rows["split"] == "")
    if not waiting.any():
        return
    table = (
        rows[waiting]
        .groupby(["episode", "label"])
        .size()
        .unstack(fill_value=0)
        .reindex(columns=sorted(rows["label"].unique()), fill_value=0)
    )
    filled = {
        side: rows.loc[rows["split"] == side, "label"]
        .value_counts()
        .reindex(table.columns, fill_value=0)
        .to_numpy(float)
        for side in shares
    }
    total = (
        sum(filled.values())
        + rows.loc[rows["split"] == "", "label"].value_counts().reindex(table.columns, fill_value=0).to_numpy()
    )
    sizes = dict(zip(table.index, table.to_numpy(float)))
    left = (table.to_numpy() > 0).sum(0)  # episodes of each class that are still to be placed
    order = sorted(sizes, key=lambda name: hashlib.sha256(f"{settings.seed} {name}".encode()).hexdigest())
    rarity = {name: left[sizes[name] > 0].min() for name in order}
    placements = {}
    for episode in sorted(order, key=rarity.get):  # rare classes first, while there is a choice
        size = sizes[episode]
        has = size > 0
        rare = np.flatnonzero(has)[left[has].argmin()]
        lacking = [side for side in shares if filled[side][rare] == 0]
        choices = (
            lacking if 0 < left[rare] <= len(lacking) else list(shares)
        )  # the last episodes of a class go where it is missing
        side = min(choices, key=lambda side: ((filled[side] + size)[has] / (shares[side] * total[has])).sum())
        placements[episode] = side
        filled[side] = filled[side] + size
        left = left - has
    rows.loc[waiting, "reason"] = f"drawn with split.seed {settings.seed}"
    rows.loc[waiting, "split"] = rows.loc[waiting, "episode"].map(placements)


def _embargo(rows):
    """Leaves out new images too close in time to one of another side: of two new ones that which is learnt from, not that which is judged on."""
    minutes = rows["captured_at"].to_numpy("datetime64[ns]").astype("int64") / 60e9
    for index in rows[episodes.timed(rows)].groupby(rows["device"].fillna("unknown")).groups.values():
        index = index.to_numpy()[np.argsort(minutes[index], kind="stable")]
        steps = [(side, True, [other for other in SPLIT_NAMES if other != side], False) for side in SPLIT_NAMES]
        for weak, weak_new, strong, strong_new in (
            *steps,
            ("train", True, ["validation", "test"], True),
            ("validation", True, ["test"], True),
        ):
            group = rows.loc[index]
            moving = index[((group["split"] == weak) & (group["new"] == weak_new)).to_numpy()]
            staying = index[(group["split"].isin(strong) & (group["new"] == strong_new)).to_numpy()]
            if not len(moving) or not len(staying):
                continue
            place = np.searchsorted(minutes[staying], minutes[moving])
            for neighbour in (staying[np.clip(place - 1, 0, None)], staying[np.clip(place, None, len(staying) - 1)]):
                distance = np.abs(minutes[moving] - minutes[neighbour])
                near = distance < np.minimum(rows["radius"].to_numpy()[moving], rows["radius"].to_numpy()[neighbour])
                for one, other, apart in zip(moving[near], neighbour[near], distance[near]):
                    rows.loc[one, ["split", "reason"]] = [
                        "embargo",
                        f"{apart:.1f} minutes from an image of {rows['split'].iat[other]}",
                    ]
