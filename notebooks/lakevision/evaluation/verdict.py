"""The verdict on a model: evaluable, weak or not evaluable, with the reasons.

The burden of proof is on the model. If a baseline that cannot see the object scores as well, the set cannot show that
the model sees the object.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from lakevision.dataset.object_region import Region
from lakevision.evaluation.confounding import Finding
from lakevision.evaluation.intervals import Estimate

MARGIN = 0.05  # a model must beat a baseline by this accuracy to show that it sees more


@dataclass
class Evidence:
    """The measurements behind the verdict; an Estimate is None if it could not be measured.

    accuracy: of the model; majority: accuracy of predicting the most frequent class;
    metadata, nearest: of the baselines;
    context: of the network with the object hidden; followed: share of swaps in which the prediction follows the object;
    region: part that the controls hid; confounders, suspects: of the confounding check; warnings: of the split.
    """

    accuracy: Estimate
    majority: float
    metadata: Estimate
    nearest: Estimate | None = None
    context: Estimate | None = None
    followed: Estimate | None = None
    region: Region | None = None
    confounders: list[Finding] = field(default_factory=list)
    suspects: list[Finding] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def context_of_known_region(self) -> Estimate | None:
        """The context-only control, if its region is known. A region learnt from the model may itself be a shortcut."""
        return self.context if self.region and self.region.known else None


def judge(evidence: Evidence) -> tuple[str, list[str]]:
    """("evaluable" | "weak" | "not evaluable", reasons in words, the most important first)."""
    reasons = _refutations(evidence)
    if reasons:
        return "not evaluable", reasons + list(evidence.warnings)
    reasons = _doubts(evidence)
    if reasons:
        return "weak", reasons
    assert evidence.context is not None  # _doubts() reports a missing control
    followed = f"; {evidence.followed.value:.1%} of exchanged objects are recognised" if evidence.followed else ""
    return "evaluable", [
        f"the model reaches an accuracy of {evidence.accuracy} on episodes not used for training, metadata alone "
        f"{evidence.metadata.value:.3f}, the surroundings alone {evidence.context.value:.3f}{followed}"
    ]


def best_baseline(evidence: Evidence) -> float:
    """The highest accuracy of a baseline that cannot see the object.

    Baselines are majority class, metadata, nearest in time and, if the region is known, the surroundings.
    """
    estimates = [evidence.metadata, evidence.nearest, evidence.context_of_known_region]
    return max([evidence.majority, *(estimate.value for estimate in estimates if estimate)])


def _as_good(baseline: Estimate, evidence: Evidence) -> bool:
    """True if the baseline beats chance and the model does not beat the baseline by MARGIN."""
    beats_chance = baseline.value > evidence.majority + MARGIN and not (
        baseline.low <= evidence.majority and baseline.value < 1
    )
    return beats_chance and baseline.value >= evidence.accuracy.value - MARGIN


def _refutations(evidence: Evidence) -> list[str]:
    """Reasons for "not evaluable"."""
    names = [finding.feature for finding in evidence.confounders or evidence.suspects]
    blamed = f" (the label follows {_listed(names)})" if names else ""
    model = evidence.accuracy.value
    reasons: list[str] = []
    for baseline, name in (
        (evidence.metadata, "a baseline that sees no pixel (camera, day, hour, light, size, EXIF)"),
        (evidence.nearest, "predicting the label of the nearest image in time"),
        (evidence.context_of_known_region, "the same network with the object hidden"),
    ):
        if baseline and _as_good(baseline, evidence):
            reasons.append(
                f"{name} reaches an accuracy of {baseline.value:.3f}, the model {model:.3f}: this set cannot show that "
                f"the model sees the object{'' if reasons else blamed}"
            )
    for finding in evidence.confounders:
        if not reasons and finding.accuracy > evidence.majority + MARGIN and finding.accuracy >= model - MARGIN:
            reasons.append(
                f"the {finding.feature} alone predicts {finding.accuracy:.1%} of the held-out images correctly, "
                f"the model {model:.1%}: this set cannot show that the model sees the object"
            )
    if evidence.followed and evidence.followed.value < 0.5 and evidence.followed.high < evidence.accuracy.low:
        reasons.append(
            f"if the object is exchanged, the prediction follows it in only {evidence.followed.value:.1%} of the "
            "swaps: the model looks at something else"
        )
    return reasons


def _doubts(evidence: Evidence) -> list[str]:
    """Reasons for "weak"."""
    accuracy, reasons = evidence.accuracy, []
    if accuracy.low <= evidence.majority:
        reasons.append(
            f"the model's accuracy of {accuracy.value:.3f} has a 95 % interval from {accuracy.low:.3f} to "
            f"{accuracy.high:.3f}, which includes chance: predicting the most frequent class reaches "
            f"{evidence.majority:.3f}"
        )
    for finding in evidence.confounders:
        reasons.append(
            f"the label follows the {finding.feature} in part: it explains {finding.explained:.0%} of the label, "
            f"and alone it predicts {finding.accuracy:.1%} of the held-out images correctly"
        )
    if evidence.followed and evidence.followed.high < accuracy.low:
        reasons.append(
            f"if the object is exchanged, the prediction follows it in a share of {evidence.followed} of the swaps, "
            f"less than the accuracy of {accuracy}"
        )
    if evidence.context is None:
        reasons.append(
            "unchecked: the surroundings may reveal the label, because the control with the object hidden did not run"
        )
    elif evidence.region is not None and not evidence.region.known and _as_good(evidence.context, evidence):
        reasons.append(
            "with the part hidden that the model uses most, the same network still reaches an accuracy of "
            f"{evidence.context.value:.3f}: something else reveals the label, too"
        )
    return reasons + list(evidence.warnings)


def _listed(names: list[str]) -> str:
    """Up to three names as "the a, the b and the c"."""
    shown = [f"the {name}" for name in names[:3]]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
