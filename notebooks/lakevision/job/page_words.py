"""The words of a run's page: which figures of summary.json answer which question."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORKED, SERVES, GOOD, DATA, TIME, OTHER = (
    "Did it work?",
    "Which version serves, and why?",
    "How good is it?",
    "On what data?",
    "How long did it take?",
    "Other figures",
)
QUESTIONS = (WORKED, SERVES, GOOD, DATA, TIME)


@dataclass(frozen=True)
class Row:
    """One line of the page.

    keys: figures as stage.key. write: makes their text; its arguments are the figures in this order, None if missing.
    """

    question: str
    label: str
    keys: tuple[str, ...]
    write: Callable[..., str]


def rows(summary: dict) -> list[tuple[str, str, str]]:
    """(question, label, text) of all figures of a summary, in the order of the page.

    A figure without words appears under OTHER, with its key as label.
    """
    figures = {
        f"{stage}.{key}": value
        for stage, values in summary.items()
        if isinstance(values, dict)
        for key, value in values.items()
    }
    written = [
        (row.question, row.label, row.write(*(figures.get(key) for key in row.keys)))
        for row in ROWS
        if any(key in figures for key in row.keys)
    ]
    return written + [(OTHER, key, plain(value)) for key, value in figures.items() if key not in KNOWN]


def plain(value: Any) -> str:
    """A value as text."""
    if value is None:
        return "not measured"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if 0 < abs(value) < 1e-3 else f"{value:,.3f}"
    if isinstance(value, int):
        return f"{value:,}"
    return value if isinstance(value, str) else json.dumps(value, sort_keys=True)


def listed(values: Any) -> str:
    """A list as text, "none" if it is empty."""
    return ", ".join(value if isinstance(value, str) else plain(value) for value in values or ()) or "none"


def sentences(values: Any) -> str:
    """A list of sentences as text, "none" if it is empty."""
    return "; ".join(map(str, values or ())) or "none"


def named(value: Any) -> str:
    """A name or number that identifies something, "none" if it is empty."""
    return str(value) if value not in (None, "") else "none"


def percent(value: float | None) -> str:
    """A share as a percentage."""
    return "not measured" if value is None else f"{100 * value:.1f} %"


def seconds(value: float | None) -> str:
    """A duration in seconds, or in minutes from two minutes on."""
    if value is None:
        return "not measured"
    minutes, rest = divmod(round(value), 60)
    return f"{value:.1f} s" if value < 120 else f"{minutes} min {rest} s"


def _accuracy(value: float, low: float | None, high: float | None) -> str:
    return f"{plain(value)} (95 % interval {plain(low)} to {plain(high)})"


def _verdict(verdict: str, reasons: list[str] | None) -> str:
    return f"{verdict}: {sentences(reasons)}"


def _version(version: str, alias: str | None) -> str:
    return f"{named(version)} ({named(alias)})"


def _promoted(promoted: bool, reason: str | None) -> str:
    return f"{plain(promoted)}: {named(reason)}"


def _ranks(ranks: int, engine: str | None) -> str:
    """Runs before training.engine was a setting had Horovod."""
    return f"{plain(ranks)}, {engine or 'horovod'}"


def _person(value: str | None) -> str:
    return value or "nobody"


def _correct(confusion: list[list[int]] | None, classes: list[str] | None) -> str:
    if not confusion or not classes:
        return "not measured"
    return ", ".join(
        f"{name} {counts[index]:,} of {sum(counts):,}"
        for index, (name, counts) in enumerate(zip(classes, confusion, strict=False))
    )


def _leakage(value: dict | None) -> str:
    value = value or {}
    return f"{plain(value.get('random_split'))} if split at random, {plain(value.get('episodes'))} as split by episodes"


def _champion(value: dict | None) -> str:
    if not value:
        return "no model served before"
    if "difference" not in value:
        return f"version {value.get('version')}: {value.get('note')}"
    compared = (
        f"version {value['version']}: {plain(value['champion'])}, the new model {plain(value['challenger'])} "
        f"on the same {value['images']:,} images; difference {value['difference']:+.3f} "
        f"(95 % interval {value['low']:+.3f} to {value['high']:+.3f})"
    )
    return f"{compared}; {value['note']}" if value.get("note") else compared


ROWS = (
    Row(WORKED, "Files that were skipped because they are no photographs", ("capture.skipped",), plain),
    Row(WORKED, "Files that were rejected because they are no usable images", ("ingest.rejected",), plain),
    Row(WORKED, "Checks of the data that could not run", ("train.unchecked",), sentences),
    Row(WORKED, "Photographs that could not be scored", ("score.errors",), plain),
    Row(SERVES, "Model", ("deploy.model",), named),
    Row(SERVES, "New version", ("deploy.version", "deploy.alias"), _version),
    Row(SERVES, "Promoted to champion", ("deploy.promoted", "deploy.reason"), _promoted),
    Row(SERVES, "Promoted against the evaluation by", ("deploy.promoted_anyway",), _person),
    Row(SERVES, "Checks of the gate", ("deploy.checks",), plain),
    Row(SERVES, "Largest difference between the serving paths (probability)", ("deploy.parity",), plain),
    Row(SERVES, "Photographs on which the int8 edge file gives the same label", ("deploy.int8_agreement",), percent),
    Row(SERVES, "Champion before, on the held-out images (accuracy)", ("train.champion",), _champion),
    Row(SERVES, "Version that scored the photographs", ("score.version",), named),
    Row(GOOD, "Verdict of the evaluation", ("train.verdict", "train.reasons"), _verdict),
    Row(GOOD, "Accuracy on held-out episodes (0 to 1)", ("train.accuracy", "train.low", "train.high"), _accuracy),
    Row(GOOD, "Correct held-out images of each class", ("train.confusion", "train.classes"), _correct),
    Row(GOOD, "Best baseline that cannot see the object (accuracy)", ("train.best_baseline",), plain),
    Row(GOOD, "Baseline: always the most frequent class (accuracy)", ("train.majority_baseline",), plain),
    Row(GOOD, "Baseline: camera, time, light and EXIF, no pixels (accuracy)", ("train.metadata_baseline",), plain),
    Row(GOOD, "Baseline: label of the nearest image in time (accuracy)", ("train.nearest_baseline",), plain),
    Row(GOOD, "Control: same network with the object hidden (accuracy)", ("train.context_only",), plain),
    Row(GOOD, "Object's region in the image (left, top, right, bottom)", ("train.region",), named),
    Row(GOOD, "Prediction follows the object into another photograph", ("train.swap_followed",), percent),
    Row(GOOD, "Prediction stays after an exchange within the class", ("train.swap_same_class",), percent),
    Row(GOOD, "Features other than the object that explain the label", ("train.confounders",), listed),
    Row(GOOD, "Calibration error of the probabilities (0 to 1)", ("train.calibration_error",), plain),
    Row(GOOD, "Threshold with the lowest cost of errors (probability)", ("train.cheapest_threshold",), plain),
    Row(GOOD, "MLflow run", ("train.run_id",), named),
    Row(GOOD, "Model in MLflow", ("train.model_uri",), named),
    Row(GOOD, "Evaluation report", ("train.report",), named),
    Row(DATA, "Photographs that this run added to the landing zone", ("capture.new",), plain),
    Row(DATA, "Photographs that were in the landing zone before", ("capture.known",), plain),
    Row(DATA, "Files in the landing zone", ("ingest.landed",), plain),
    Row(DATA, "Images in the table", ("ingest.images",), plain),
    Row(DATA, "Files that this run ingested", ("ingest.new",), plain),
    Row(DATA, "Labels added from the label source", ("ingest.labels_added",), plain),
    Row(DATA, "Labels for photographs that have not landed", ("ingest.labels_unknown",), listed),
    Row(DATA, "Classes", ("train.classes",), listed),
    Row(DATA, "Label of the nearest image in time (accuracy)", ("train.leakage",), _leakage),
    Row(DATA, "Version of the table `images`", ("train.delta_version",), plain),
    Row(DATA, "Version of the table `labels`", ("train.labels_version",), plain),
    Row(DATA, "Split", ("train.split_scheme",), named),
    Row(DATA, "Cache of the decoded images", ("train.cache",), named),
    Row(DATA, "Photographs scored", ("score.images",), plain),
    Row(TIME, "Ingest", ("ingest.seconds",), seconds),
    Row(TIME, "Scoring", ("score.seconds",), seconds),
    Row(TIME, "Trials of the search", ("train.trials",), plain),
    Row(TIME, "Ranks of the final training, and their engine", ("train.ranks", "train.engine"), _ranks),
)
KNOWN = frozenset(key for row in ROWS for key in row.keys)
