"""Which images a model may learn from: whole episodes go to train, validation or test, never single rows.

Frames of one camera are near copies of their neighbours. A split by rows puts copies on both sides and then measures memory.
"""

import hashlib

import pandas as pd

SIDES = ("train", "validation", "test")


class CannotSplit(ValueError):
    """There are too few images or classes for three sides; the message says what is there and what to do."""


def assign(images, settings):
    """Adds the columns episode and split to images, and drops second copies of the same bytes and rows with no label.

    images: DataFrame of path, sha256, label, device, captured_at (datetime64), captured_from. settings: Config.split.
    Returns (DataFrame of path, sha256, label, episode, split; list of warnings in words). Raises CannotSplit.
    """
    labelled = images.dropna(subset=["label"]).sort_values(["captured_at", "path"]).drop_duplicates("sha256")
    counts = labelled["label"].value_counts()
    if len(counts) < 2:
        raise CannotSplit(f"training needs two classes, found {dict(counts)} in {len(images)} images. "
                          "Put the images into class folders, or name them <...>_<label>.jpg (config: ingest.labels)")
    if len(counts) > max(20, len(labelled) // 3):
        raise CannotSplit(f"{len(counts)} labels for {len(labelled)} images, such as {list(counts.index[:3])}: these names hold no labels. "
                          "Put the images into class folders (config: ingest.labels)")
    if counts.min() < 3:
        raise CannotSplit(f"class {counts.idxmin()!r} has {counts.min()} image(s); each class needs 3 at least, one for each side")
    labelled = labelled.assign(episode=episodes(labelled, settings.episode_gap_minutes))
    warnings = []
    if len(labelled) < images["label"].notna().sum():
        warnings.append(f"{images['label'].notna().sum() - len(labelled)} second copies of the same bytes were left out")
    untimed = (labelled["captured_from"] == "file").mean()
    if untimed > 0:
        warnings.append(f"{untimed:.0%} of the images have no capture time: near copies among them can't be found, leakage is unchecked")
    for label, rows in labelled.groupby("label"):
        if rows["episode"].nunique() < 3:
            labelled.loc[rows.index, "episode"] = _blocks(rows)
            warnings.append(f"class {label!r} comes in {rows['episode'].nunique()} episode(s): its frames were cut into blocks of time, "
                            "and neighbours on both sides of a cut are near copies")
    sides = {}
    for _, rows in labelled.groupby("label"):
        sides.update(_sides(rows["episode"].value_counts(), settings))
    return labelled.assign(split=labelled["episode"].map(sides))[["path", "sha256", "label", "episode", "split"]], warnings


def episodes(images, gap_minutes):
    """An episode's name for each row: frames of one device and label with no pause longer than gap_minutes.

    An image whose time is unknown stands alone. images as in assign(), sorted by captured_at.
    """
    names, last = {}, {}
    gap = pd.Timedelta(minutes=gap_minutes)
    for row in images.itertuples():
        if row.captured_from == "file":
            names[row.Index] = f"image {row.sha256[:16]}"
            continue
        seen = last.get(row.device)
        if seen is None or row.captured_at - seen[0] > gap or row.label != seen[1]:
            name = f"{row.device} {row.captured_at:%Y-%m-%dT%H:%M:%S} {row.label}"
        else:
            name = seen[2]
        names[row.Index], last[row.device] = name, (row.captured_at, row.label, name)
    return pd.Series(names)


def _blocks(rows, blocks=6):
    """Cuts one class's frames, in order of time, into contiguous blocks; each counts as an episode."""
    size = -(-len(rows) // min(blocks, len(rows)))
    return [f"{row.episode} block {index // size}" for index, row in enumerate(rows.itertuples())]


def _sides(sizes, settings):
    """{episode: side} for one class. sizes: Series episode -> number of images. A hash of the name decides the order, not the order of rows."""
    order = sorted(sizes.index, key=lambda name: hashlib.sha256(f"{settings.seed} {name}".encode()).hexdigest())
    total, sides, filled = sizes.sum(), {}, 0
    for side, share in (("test", settings.test), ("validation", settings.validation)):
        filled = 0
        while order and (filled == 0 or filled + sizes[order[0]] / 2 < share * total) and len(order) > (2 if side == "test" else 1):
            sides[order[0]] = side
            filled += sizes[order.pop(0)]
    return sides | dict.fromkeys(order, "train")
