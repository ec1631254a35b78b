"""The gate: the checks that a version must pass before it serves. Thresholds are settings of `deploy`."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from lakevision.platform import config
from lakevision.release import parity

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


@dataclass(frozen=True)
class Check:
    """One condition. evaluation: True if deploy.promote_anyway can overrule the check; technical faults can't be
    overruled.
    """

    name: str
    found: str
    wanted: str
    passed: bool
    evaluation: bool = False


@dataclass
class Decision:
    """Whether the model becomes champion, and the reason. word: of the person who promotes it against the
    evaluation, else "".
    """

    promoted: bool
    reason: str
    word: str = ""
    checks: list[Check] = field(default_factory=list)

    def table(self) -> pd.DataFrame:
        """The checks as a table: check, found, wanted, passed."""
        return pd.DataFrame(
            [
                {"check": check.name, "found": check.found, "wanted": check.wanted, "passed": check.passed}
                for check in self.checks
            ]
        )


def checks(
    cfg: config.Config,
    training: dict,
    agreed: parity.Parity,
    manifest: dict,
    accuracies: dict[str, float],
    serving: ModelVersion | None,
) -> list[Check]:
    """All checks of a version.

    training: the figures of 03_train; agreed: the comparison of all paths; manifest: of the edge files; accuracies:
    {variant: accuracy on the test split}; serving: the champion's version in MLflow.
    """
    against = objection(training)
    evaluation = Check(
        "evaluation",
        against or f"{training['verdict']}: {training['accuracy']:.3f}, at least {training['low']:.3f}",
        f"above the best baseline ({training['best_baseline']:.3f}), evaluable",
        not against,
        evaluation=True,
    )
    return [
        evaluation,
        against_champion(cfg, training, serving),
        *_path_checks(cfg, agreed),
        *_edge_checks(cfg, training, manifest, accuracies),
    ]


def _path_checks(cfg: config.Config, agreed: parity.Parity) -> list[Check]:
    """All serving paths must agree: the exact paths within the tolerance, the rounded edge files in their labels."""
    limit, made = cfg.deploy.parity_tolerance, []
    for path in parity.EXACT:
        apart = agreed.apart(path)
        worst = f"{apart.max():.1e}" + ("" if apart.max() <= limit else f" ({agreed.names[int(apart.argmax())]})")
        made.append(Check(f"{path} against Keras", worst, f"{limit:.0e} at most", bool(apart.max() <= limit)))
    wanted = cfg.deploy.int8_agreement
    for variant in ("float16", "int8"):
        share = agreed.agreement(parity.VARIANTS[variant])
        made.append(Check(f"{variant} says the same", f"{share:.1%}", f"{wanted:.0%} at least", share >= wanted))
    return made


def _edge_checks(cfg: config.Config, training: dict, manifest: dict, accuracies: dict[str, float]) -> list[Check]:
    """The edge files: loss of accuracy by int8, size and latency."""
    lost, one_image = accuracies["float32"] - accuracies["int8"], 1 / max(1, sum(map(sum, training["confusion"])))
    largest = max(entry["bytes"] for entry in manifest["variants"].values()) / 1e6
    quickest = min(entry["p50_ms"] for entry in manifest["variants"].values())
    return [
        Check(
            "int8 loses accuracy",
            f"{lost:+.4f}",
            f"{cfg.deploy.int8_may_lose} at most, or one image",
            lost <= max(cfg.deploy.int8_may_lose, one_image) + 1e-9,
        ),
        Check(
            "size of an edge file", f"{largest:.2f} MB", f"{cfg.deploy.max_mb} MB at most", largest <= cfg.deploy.max_mb
        ),
        Check(
            "latency of the quickest, here",
            f"{quickest:.1f} ms",
            f"{cfg.deploy.max_latency_ms} ms at most",
            quickest <= cfg.deploy.max_latency_ms,
        ),
    ]


def objection(training: dict) -> str:
    """The evaluation's objection to a promotion, in words; "" if there is none. training: the figures of 03_train."""
    if training["verdict"] == "not evaluable":
        return f"not evaluable: {training['reasons'][0]}"
    if training["low"] <= training["best_baseline"]:
        return (
            f"accuracy of {training['accuracy']:.3f} (at least {training['low']:.3f}) is not above the best baseline "
            f"({training['best_baseline']:.3f})"
        )
    return ""


def against_champion(cfg: config.Config, training: dict, serving: ModelVersion | None) -> Check:
    """Challenger against champion on the same held-out episodes, as 03_train compared them."""

    def check(found: str, passed: bool) -> Check:
        wanted = f"loses {cfg.deploy.may_lose} at most, and not surely"
        return Check("against the champion", found, wanted, passed, evaluation=True)

    if serving is None:
        return check("no model serves yet", True)
    if serving.run_id == training["run_id"]:
        return check(f"version {serving.version} is the same training", True)
    compared = training.get("champion") or {}
    if compared.get("version") != str(serving.version):
        other = compared.get("version", "none")
        return check(f"version {serving.version} serves, and 03_train compared with {other}: run it again", False)
    if "difference" not in compared:
        return check(compared["note"], True)
    interval = f"[{compared['low']:+.3f}, {compared['high']:+.3f}]"
    found = f"{compared['difference']:+.3f} {interval} on {compared['images']} images"
    return check(
        found + (f"; {compared['note']}" if compared["note"] else ""),
        compared["difference"] >= -cfg.deploy.may_lose and compared["high"] >= 0,
    )


def decide(cfg: config.Config, training: dict, made: list[Check]) -> Decision:
    """The decision on a version. All checks must pass, but deploy.promote_anyway overrules those of the evaluation.

    training: the figures of 03_train; made: of checks(). The word of deploy.promote_anyway stays with the version.
    """
    failed = [check for check in made if not check.passed]
    broken = [check for check in failed if not check.evaluation]
    if broken:
        reasons = [f"{check.name}: {check.found}, wanted: {check.wanted}" for check in broken]
        return Decision(False, "; ".join(reasons), "", made)
    if failed:
        objections = "; ".join(
            check.found if check.name == "evaluation" else f"{check.name}: {check.found}" for check in failed
        )
        word = cfg.deploy.promote_anyway
        if not word:
            return Decision(False, objections, "", made)
        reason = f"promoted against the evaluation, by word of {word} (objection: {objections})"
        return Decision(True, reason, word, made)
    return Decision(
        True,
        f"{training['verdict']}; accuracy {training['accuracy']:.3f} against {training['best_baseline']:.3f} of the "
        f"best baseline; all {len(made)} checks passed",
        "",
        made,
    )
