"""The verdict: evaluable, weak or not evaluable, with the figures that led to it.

The burden of proof is the model's. What sees no object and scores as well shows that the set can't tell whether the model sees it.
"""

from dataclasses import dataclass, field

from lakevision.dataset.object_region import Region
from lakevision.evaluation import intervals

MARGIN = 0.05  # a model that beats a baseline by less than this has not been shown to see more than it


@dataclass
class Evidence:
    """What the verdict rests on. accuracy: of the model; majority: of saying the most frequent class; metadata, nearest, context, followed: Figures
    or None where that could not be had; confounders, suspects: alarms and suspects of the confounding check; region: what the controls hid;
    warnings: what the split can't rule out."""

    accuracy: intervals.Estimate
    majority: float
    metadata: intervals.Estimate
    nearest: intervals.Estimate = None
    context: intervals.Estimate = None
    followed: intervals.Estimate = None
    region: Region = None
    confounders: list = field(default_factory=list)
    suspects: list = field(default_factory=list)
    warnings: list = field(default_factory=list)


def judge(seen):
    """("evaluable" | "weak" | "not evaluable", reasons in words, the weightiest first). seen: Evidence."""
    reasons = _refutations(seen)
    if reasons:
        return "not evaluable", reasons + list(seen.warnings)
    reasons = _doubts(seen)
    if reasons:
        return "weak", reasons
    followed = (
        f", and its prediction follows the exchanged object in {seen.followed.value:.1%}" if seen.followed else ""
    )
    return "evaluable", [
        f"the model reaches {seen.accuracy} on episodes it has not seen, metadata alone {seen.metadata.value:.3f}, the surroundings "
        f"alone {seen.context.value:.3f}{followed}"
    ]


def best_baseline(seen):
    """The highest accuracy of what can't see the object: majority, metadata, nearest in time and, with a known region, the surroundings."""
    figures = [seen.metadata, seen.nearest, seen.context if seen.region and seen.region.known else None]
    return max([seen.majority, *(figure.value for figure in figures if figure)])


def _as_good(figure, seen):
    """Whether a baseline knows something, beyond chance, and the model no more."""
    knows = figure.value > seen.majority + MARGIN and not (figure.low <= seen.majority and figure.value < 1)
    return knows and figure.value >= seen.accuracy.value - MARGIN


def _refutations(seen):
    names = [finding.feature for finding in seen.confounders or seen.suspects]
    blamed = f" (the label follows {_listed(names)})" if names else ""
    found = []
    for figure, what in (
        (seen.metadata, "a baseline that sees no pixel (camera, day, hour, light, size, EXIF)"),
        (seen.nearest, "saying what the nearest image in time was"),
        (seen.context if seen.region and seen.region.known else None, "the same network with the object hidden"),
    ):
        if figure and _as_good(figure, seen):
            found.append(
                f"{what} reaches {figure.value:.3f}, the model {seen.accuracy.value:.3f}: this set can't show that the model sees the object"
                f"{blamed if not found else ''}"
            )
    for finding in seen.confounders:
        if not found and finding.accuracy > seen.majority + MARGIN and finding.accuracy >= seen.accuracy.value - MARGIN:
            found.append(
                f"the {finding.feature} alone tells the label in {finding.accuracy:.3f} of the held-out images, the model in "
                f"{seen.accuracy.value:.3f}: this set can't show that the model sees the object"
            )
    if seen.followed and seen.followed.value < 0.5 and seen.followed.high < seen.accuracy.low:
        found.append(
            f"with the object's region exchanged, the prediction follows the object in {seen.followed.value:.1%} only: the model looks at "
            "something else"
        )
    return found


def _doubts(seen):
    found = []
    if seen.accuracy.low <= seen.majority:
        found.append(
            f"the model's accuracy of {seen.accuracy.value:.3f} has an interval from {seen.accuracy.low:.3f} to {seen.accuracy.high:.3f}, "
            f"which holds chance: saying the most frequent class reaches {seen.majority:.3f}"
        )
    for finding in seen.confounders:
        found.append(
            f"the label follows the {finding.feature} in part: it explains {finding.explained:.0%} of it and reaches "
            f"{finding.accuracy:.3f} alone"
        )
    if seen.followed and seen.followed.high < seen.accuracy.low:
        found.append(
            f"with the object's region exchanged, the prediction follows the object in {seen.followed}, the accuracy is {seen.accuracy}"
        )
    if seen.context is None:
        found.append(
            "whether the surroundings tell the label is unchecked: there was no control with the object hidden"
        )
    elif not seen.region.known and _as_good(seen.context, seen):
        found.append(
            f"with the part hidden that the model looks at most, the same network still reaches {seen.context.value:.3f}: something else "
            "tells the label, too"
        )
    return found + list(seen.warnings)


def _listed(names):
    shown = [f"the {name}" for name in names[:3]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
