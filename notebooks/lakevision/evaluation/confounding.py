"""The confounding check, before training: does anything but the object reveal the label?

Features are day, hour, camera, camera position, brightness, size and each EXIF field. The unit is the episode,
because its frames share label and circumstances. Each feature is cut into bins. The mutual information of bin and label
measures how much of the label the feature explains. Shuffled labels show how much it would explain by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pandas as pd

from lakevision.dataset import episodes, feed, object_region
from lakevision.evaluation import camera_shift

DRAWS = 4000  # shuffles: 40 features at 1 % overall need p down to 0.00025
ALPHA = 0.01  # chance that a clean set raises any alarm, however many features it has (Bonferroni)
# Share of the label's entropy that a feature must explain to alarm; with two balanced classes, a rule on such a feature
# is right in about 3 of 4 cases.
STRONG = 0.15
UNITS = 2000  # largest number of episodes checked; more are sampled at random
BINS = 10
# EXIF has times under many names, and capture time is a feature already. Free text and thumbnails differ in each frame.
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
KEPT = ("ExposureTime",)  # a duration, not a time of day


@dataclass
class Finding:
    """The result for one feature.

    explained: share of the label's entropy that it explains beyond chance (0 to 1); p: probability of this by chance;
    accuracy: on the test split, of predicting each bin's most frequent label;
    alarm: whether the feature explains too much for chance, and enough to matter.
    """

    feature: str
    explained: float
    p: float
    accuracy: float
    alarm: bool


@dataclass
class Checked:
    """The result for all features. findings: strongest first; unchecked: texts on unchecked features."""

    findings: list[Finding]
    unchecked: list[str]

    @property
    def alarms(self) -> list[Finding]:
        """Findings that are too strong for chance, after correction for the number of features."""
        return [finding for finding in self.findings if finding.alarm]

    @property
    def suspects(self) -> list[Finding]:
        """Findings that would alarm if only one feature had been tested.

        With few episodes no feature may pass the stricter test of all features at once. If a baseline shows that
        something reveals the label, the suspects are the likely causes.
        """
        return [finding for finding in self.findings if finding.explained >= STRONG and finding.p <= ALPHA]

    def figures(self) -> dict[str, list]:
        """The alarms and the unchecked features, for the run's summary."""
        return {"confounders": [asdict(finding) for finding in self.alarms], "unchecked": self.unchecked}

    def table(self) -> pd.DataFrame:
        """The findings, rounded for display: DataFrame of feature, explained, p, accuracy, alarm."""
        return pd.DataFrame(
            [asdict(finding) for finding in self.findings], columns=["feature", "explained", "p", "accuracy", "alarm"]
        ).round(4)


def check(
    images: pd.DataFrame,
    placements: pd.DataFrame,
    arrays: Sequence[feed.Arrays] = (),
    region: object_region.Region | None = None,
    seed: int = 0,
) -> Checked:
    """Checks every feature.

    images: DataFrame as of split_table.metadata; placements: DataFrame of path, label, episode, split;
    arrays: pixels of the splits, for the camera's position; region: the object's region, ignored for the position.
    """
    rows = placements[["path", "label", "episode", "split"]].merge(
        images.drop(columns="label", errors="ignore"), on="path"
    )
    columns, unchecked = features(rows)
    positions = _camera_positions(rows, arrays, region)
    columns.update(positions)
    if not positions:
        reason = "the pictures have no fixed view" if arrays else "no pictures were given"
        unchecked.append(f"camera position: {reason}")
    rng = np.random.default_rng(seed)
    groups = rows.groupby(["episode", "label"], sort=True).ngroup().to_numpy()
    chosen = np.unique(groups)
    if len(chosen) > UNITS:
        chosen = np.sort(rng.choice(chosen, UNITS, replace=False))
    first = pd.Series(np.arange(len(rows))).groupby(groups).first().loc[chosen].to_numpy()
    labels = pd.factorize(rows["label"].to_numpy()[first], sort=True)[0]
    shuffled = np.stack([rng.permutation(labels) for _ in range(DRAWS)])
    findings = []
    for name in columns:
        bins = _bins(_per_unit(columns[name], groups, chosen), len(chosen))
        if bins is None:
            unchecked.append(f"{name}: nearly every episode has its own value")
            continue
        if bins.max() == 0:
            continue  # a constant reveals nothing
        explained, p = _explained(bins, labels, shuffled)
        findings.append(Finding(name, explained, p, _accuracy(columns[name], rows), False))
    for finding in findings:
        finding.alarm = bool(finding.explained >= STRONG and finding.p * len(findings) <= ALPHA)
    return Checked(sorted(findings, key=lambda finding: (-finding.alarm, -finding.explained)), unchecked)


def features(rows: pd.DataFrame) -> tuple[dict[str, pd.Series], list[str]]:
    """Features of photographs that need no pixels: ({name: Series of numbers or texts}, texts on missing features).

    rows: DataFrame of captured_at, captured_from, device, width, height, exif and perhaps brightness.
    """
    columns, unchecked = {}, []
    timed = episodes.timed(rows)
    if timed.mean() > 0.5:
        when = rows["captured_at"].where(timed)
        columns["day"] = (when - when.min()).dt.total_seconds() // 86400
        columns["hour"] = when.dt.hour + when.dt.minute / 60
    else:
        unchecked.append("day and hour: the images have no capture time")
    columns["camera"] = rows["device"].fillna("unknown")
    if "brightness" in rows:
        columns["brightness"] = rows["brightness"].astype(float)  # not contrast: the object itself changes the contrast
    else:
        unchecked.append("brightness: not in the table images")
    columns["size"] = rows["width"].astype(str) + " x " + rows["height"].astype(str)
    tags = rows["exif"].map(lambda tags: tags or {})
    names = pd.Series([name for own in tags for name in own], dtype=object).value_counts()
    for name in names.index[names >= max(3, 0.05 * len(rows))]:
        if any(part in name for part in NO_FEATURES) and name not in KEPT:
            continue
        field = _field(tags.map(lambda own, name=name: own.get(name)))
        if field is not None:
            columns[f"EXIF {name}"] = field
    if not len(names):
        unchecked.append("EXIF: the images have none")
    return columns, unchecked


def _camera_positions(
    rows: pd.DataFrame, arrays: Sequence[feed.Arrays], region: object_region.Region | None
) -> dict[str, pd.Series]:
    """Shift of each picture to the side and up or down, as two features; empty if no camera has a fixed view."""
    if not arrays:
        return {}
    positions = {key: number for number, key in enumerate(key for part in arrays for key in part.keys)}
    order = rows["sha256"].map(positions)
    shifts = camera_shift.shifts(
        np.concatenate([part.pixels for part in arrays])[order], rows["device"].fillna("unknown"), region
    )
    if np.isnan(shifts).all():
        return {}
    return {
        f"camera position, {name}": pd.Series(shifts[:, axis].astype(float), rows.index)
        for axis, name in enumerate(("sideways", "up and down"))
    }


def _field(values: pd.Series) -> pd.Series | None:
    """An EXIF field as numbers if its values are such ("1/50", "2.9"), else as text; None if most images differ."""
    numbers = pd.to_numeric(values.map(_number, na_action="ignore"), errors="coerce")
    if numbers.notna().sum() >= 0.95 * values.notna().sum():
        return numbers
    return None if values.nunique() > 0.5 * len(values) else values.fillna("(none)")


def _number(text: str) -> float:
    """A number or fraction as float; nan for other text."""
    top, _, bottom = text.partition("/")
    try:
        return float(top) / float(bottom or 1)
    except (ValueError, ZeroDivisionError):
        return float("nan")


def _per_unit(values: pd.Series, groups: np.ndarray, chosen: np.ndarray) -> pd.Series:
    """One value for each episode: the median of numbers, the first of texts."""
    grouped = values.groupby(groups)
    return (grouped.median() if values.dtype.kind == "f" else grouped.first()).loc[chosen]


def _bins(values: pd.Series, count: int) -> np.ndarray | None:
    """Bin of each unit, int (n,): numbers by quantiles, texts by value. Rare texts share a bin, missing values another.

    None if over 80 % of the units have rare values.
    """
    if values.dtype.kind == "f" and values.nunique() > BINS:
        ranks = pd.qcut(values, max(2, min(BINS, count // 8)), labels=False, duplicates="drop")
        return pd.factorize(ranks.fillna(-1), sort=True)[0]
    codes = pd.factorize(values.astype(object).where(values.notna(), "(none)").astype(str), sort=True)[0]
    sizes = np.bincount(codes)
    rare = sizes[codes] < max(2, 0.02 * count)
    if rare.mean() > 0.8:
        return None
    return pd.factorize(np.where(rare, -1, codes), sort=True)[0]


def _explained(bins: np.ndarray, labels: np.ndarray, shuffled: np.ndarray) -> tuple[float, float]:
    """(share of the labels' entropy that the bins explain beyond chance, one-sided p from shuffled labels).

    Adjusted for chance as in Vinh, Epps and Bailey, Information Theoretic Measures for Clusterings Comparison, 2010.
    bins, labels: int (n,); shuffled: int (draws, n).
    """
    classes = labels.max() + 1
    inside = np.eye(bins.max() + 1, dtype=np.float32)[bins].T
    entropy = _entropy(np.bincount(labels, minlength=classes) / len(labels))

    def information(drawn: np.ndarray) -> np.ndarray:
        counts = np.stack([inside @ (drawn == label).T.astype(np.float32) for label in range(classes)], -1)
        joint = counts / len(labels)  # (bins, draws, classes)
        inner = _entropy(joint.sum(-1), axis=0)
        return entropy + inner - _entropy(joint.transpose(1, 0, 2).reshape(joint.shape[1], -1), axis=1)

    observed, chance = information(labels[None])[0], information(shuffled)
    expected = chance.mean()
    explained = max(0.0, (observed - expected) / max(entropy - expected, 1e-9))
    return float(explained), float((1 + (chance >= observed - 1e-6).sum()) / (1 + len(chance)))


def _entropy(shares: np.ndarray, axis: int = -1) -> np.ndarray:
    """Entropy in nats of distributions along an axis."""
    return -(shares * np.log(np.clip(shares, 1e-12, None))).sum(axis)


def _accuracy(values: pd.Series, rows: pd.DataFrame) -> float:
    """Test accuracy of a rule on one feature: predict the bin's most frequent label in the other splits."""
    bins = _bins(values, len(rows))
    bins = pd.Series(0 if bins is None else bins, rows.index)
    test = rows["split"] == "test"
    majority = rows.loc[~test, "label"].mode()[0]
    rule = rows[~test].groupby(bins[~test])["label"].agg(lambda labels: labels.mode()[0])
    return float((bins[test].map(rule).fillna(majority) == rows.loc[test, "label"]).mean())
