"""Before training: does anything that is no object tell the label? Day, hour, camera, light, size, each EXIF field.

The unit is the episode: its frames share label and circumstances, and count once. Each feature is cut into bins; the mutual information of bin and
label says how much of the label it explains, and shuffled labels say how much it would explain by chance.
"""

from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lakevision.dataset import episodes
from lakevision.evaluation import camera_shift

DRAWS = 4000  # shuffles: 40 features at 1 % overall need p down to 0.00025
ALPHA = 0.01  # chance that a clean set raises any alarm, whatever the number of features (Bonferroni)
STRONG = 0.15  # share of the label's entropy that a feature must explain to alarm: two balanced classes told apart in about 3 of 4 cases
UNITS = 2000  # episodes looked at, drawn at random where there are more
BINS = 10
# Times stand in EXIF under many names, and capture time is a feature of its own. Free text and thumbnails differ in every frame.
NO_FEATURES = (
    "Date",
    "Time",
    "Subsec",
    "SubSec",
    "Offset",
    "Stamp",
    "UniqueID",
    "UserComment",
    "Interoperability",
    "_error",
    "Thumbnail",
    "XResolution",
    "YResolution",
)
KEPT = ("ExposureTime",)  # a time, but not of day


@dataclass
class Finding:
    """What one feature says of the label. explained: share of the label's entropy, less what chance explains (0 to 1); p: of that much by chance;
    accuracy: on the test side, of saying each bin's most frequent label; alarm: whether it is too much for chance and matters."""

    feature: str
    explained: float
    p: float
    accuracy: float
    alarm: bool


@dataclass
class Checked:
    """findings: strongest first; unchecked: what could not be looked at, in words."""

    findings: list
    unchecked: list

    @property
    def alarms(self):
        return [finding for finding in self.findings if finding.alarm]

    @property
    def suspects(self):
        """What explains the label by itself, looked at alone. With few episodes none may pass the alarm's stricter test of all features at once; once a
        baseline has shown that something tells the label, these are the names to give."""
        return [finding for finding in self.findings if finding.explained >= STRONG and finding.p <= ALPHA]

    def figures(self):
        return {"confounders": [asdict(finding) for finding in self.alarms], "unchecked": self.unchecked}

    def table(self):
        """The findings as a DataFrame, for people."""
        return pd.DataFrame(
            [asdict(finding) for finding in self.findings], columns=["feature", "explained", "p", "accuracy", "alarm"]
        ).round(4)


def check(images, placements, seen=(), region=None, seed=0):
    """Looks at every feature. images: DataFrame as of split_table.metadata; placements: DataFrame of path, label, episode, split; seen: feed.Arrays of the
    sides, to find out where the camera pointed; where: the object's object_region.Region, or None. Returns Checked."""
    rows = placements[["path", "label", "episode", "split"]].merge(
        images.drop(columns="label", errors="ignore"), on="path"
    )
    columns, unchecked = features(rows)
    pointing = _pointing(rows, seen, region)
    columns.update(pointing)
    if not pointing:
        unchecked.append(
            "camera position: the pictures are not of a fixed view"
            if seen
            else "camera position: no pictures were given"
        )
    rng = np.random.default_rng(seed)
    groups = rows.groupby(["episode", "label"], sort=True).ngroup().to_numpy()
    chosen = np.unique(groups)
    if len(chosen) > UNITS:
        chosen = np.sort(rng.choice(chosen, UNITS, replace=False))
    first = pd.Series(np.arange(len(rows))).groupby(groups).first().loc[chosen].to_numpy()
    labels = pd.factorize(rows["label"].to_numpy()[first], sort=True)[0]
    shuffled = np.stack([rng.permutation(labels) for _ in range(DRAWS)])
    found = []
    for name in columns:
        values = _per_unit(columns[name], groups, chosen)
        bins = _bins(values, len(chosen))
        if bins is None:
            unchecked.append(f"{name}: nearly every episode has a value of its own")
            continue
        if bins.max() == 0:
            continue  # the same everywhere: it tells nothing
        explained, p = _explained(bins, labels, shuffled)
        found.append(Finding(name, explained, p, _accuracy(columns[name], rows), False))
    for finding in found:
        finding.alarm = bool(finding.explained >= STRONG and finding.p * len(found) <= ALPHA)
    return Checked(sorted(found, key=lambda finding: (-finding.alarm, -finding.explained)), unchecked)


def features(rows):
    """What is known of photographs without looking at what they show: ({name: Series, numbers or text}, what can't be known in words)."""
    found, unchecked = {}, []
    timed = episodes.timed(rows)
    if timed.mean() > 0.5:
        when = rows["captured_at"].where(timed)
        found["day"] = (when - when.min()).dt.total_seconds() // 86400
        found["hour"] = when.dt.hour + when.dt.minute / 60
    else:
        unchecked.append("day and hour: the images have no capture time")
    found["camera"] = rows["device"].fillna("unknown")
    if "brightness" in rows:
        found["brightness"] = rows["brightness"].astype(float)  # contrast is no feature: the object itself makes it
    else:
        unchecked.append("brightness: not in the table images")
    found["size"] = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    tags = rows["exif"].map(lambda tags: tags or {})
    names = pd.Series([name for own in tags for name in own], dtype=object).value_counts()
    for name in names.index[names >= max(3, 0.05 * len(rows))]:
        if any(part in name for part in NO_FEATURES) and name not in KEPT:
            continue
        field = _field(tags.map(lambda own, name=name: own.get(name)))
        if field is not None:
            found[f"EXIF {name}"] = field
    if not len(names):
        unchecked.append("EXIF: the images have none")
    return found, unchecked


def _pointing(rows, seen, region):
    """{"camera position, sideways": Series, "... up and down"}, from the pictures themselves; empty where no camera has a fixed view."""
    if not seen:
        return {}
    place = {key: number for number, key in enumerate(key for arrays in seen for key in arrays.keys)}
    order = rows["sha256"].map(place)
    shifts = camera_shift.shifts(
        np.concatenate([arrays.pixels for arrays in seen])[order], rows["device"].fillna("unknown"), region
    )
    if np.isnan(shifts).all():
        return {}
    return {
        f"camera position, {name}": pd.Series(shifts[:, axis].astype(float), rows.index)
        for axis, name in enumerate(("sideways", "up and down"))
    }


def _field(values):
    """An EXIF field as numbers where it holds such ("1/50", "2.9"), else as text; None where each image has its own text."""
    numbers = pd.to_numeric(values.map(_number, na_action="ignore"), errors="coerce")
    if numbers.notna().sum() >= 0.95 * values.notna().sum():
        return numbers
    return None if values.nunique() > 0.5 * len(values) else values.fillna("(none)")


def _number(text):
    top, _, bottom = text.partition("/")
    try:
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return float("nan")


def _per_unit(values, groups, chosen):
    """One value for each episode: the median of numbers, the first of texts."""
    grouped = values.groupby(groups)
    return (grouped.median() if values.dtype.kind == "f" else grouped.first()).loc[chosen]


def _bins(values, count):
    """Each unit's bin, int array: numbers by quantiles, texts by value, the rare ones together; missing values are a bin. None where next to
    nothing is shared."""
    if values.dtype.kind == "f" and values.nunique() > BINS:
        ranks = pd.qcut(values, max(2, min(BINS, count // 8)), labels=False, duplicates="drop")
        return pd.factorize(ranks.fillna(-1), sort=True)[0]
    codes = pd.factorize(values.astype(object).where(values.notna(), "(none)").astype(str), sort=True)[0]
    sizes = np.bincount(codes)
    rare = sizes[codes] < max(2, 0.02 * count)
    if rare.mean() > 0.8:
        return None
    return pd.factorize(np.where(rare, -1, codes), sort=True)[0]


def _explained(bins, labels, shuffled):
    """(share of the labels' entropy that the bins explain beyond chance, p). Adjusted for chance as in Vinh, Epps and Bailey, Information Theoretic
    Measures for Clusterings Comparison, 2010; chance by shuffling, one-sided."""
    classes = labels.max() + 1
    inside = np.eye(bins.max() + 1, dtype=np.float32)[bins].T
    entropy = _entropy(np.bincount(labels, minlength=classes) / len(labels))

    def information(drawn):
        joint = np.stack([inside @ (drawn == label).T.astype(np.float32) for label in range(classes)], -1) / len(
            labels
        )  # (bins, draws, classes)
        inner = _entropy(joint.sum(-1), axis=0)
        return entropy + inner - _entropy(joint.transpose(1, 0, 2).reshape(joint.shape[1], -1), axis=1)

    seen, chance = information(labels[None])[0], information(shuffled)
    expected = chance.mean()
    return float(max(0.0, (seen - expected) / max(entropy - expected, 1e-9))), float(
        (1 + (chance >= seen - 1e-6).sum()) / (1 + len(chance))
    )


def _entropy(shares, axis=-1):
    return -(shares * np.log(np.clip(shares, 1e-12, None))).sum(axis)


def _accuracy(values, rows):
    """Accuracy on the test side of a rule on one feature: the most frequent label of the bin, as the other sides have it."""
    bins = _bins(values, len(rows))
    bins = pd.Series(0 if bins is None else bins, rows.index)
    test = rows["split"] == "test"
    majority = rows.loc[~test, "label"].mode()[0]
    rule = rows[~test].groupby(bins[~test])["label"].agg(lambda labels: labels.mode()[0])
    return float((bins[test].map(rule).fillna(majority) == rows.loc[test, "label"]).mean())
