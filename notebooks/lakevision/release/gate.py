"""The gate: what must hold before a version serves. Each check is one line of a table; thresholds are settings of `deploy`."""

from dataclasses import dataclass, field

import pandas as pd

from lakevision.release import parity


@dataclass(frozen=True)
class Check:
    """One thing that must hold. evaluation: whether somebody's word can overrule it (deploy.promote_anyway); broken paths it can't."""

    name: str
    found: str
    wanted: str
    passed: bool
    evaluation: bool = False


@dataclass
class Decision:
    """Whether the model becomes champion, and why, in words. word: of whoever promotes it against the evaluation; "" where the gate lets it."""

    promoted: bool
    reason: str
    word: str = ""
    checks: list = field(default_factory=list)

    def table(self):
        return pd.DataFrame(
            [
                {"check": check.name, "found": check.found, "wanted": check.wanted, "passed": check.passed}
                for check in self.checks
            ]
        )


def checks(cfg, training, agreed, manifest, accuracies, serving):
    """All Checks of a version. training: the figures of 03_train; agreed: parity.Parity; manifest: of its edge files; accuracies: {variant: share right
    on the test side}; serving: the champion's MLflow version, or None."""
    against = objection(training)
    found = [
        Check(
            "evaluation",
            against or f"{training['verdict']}: {training['accuracy']:.3f}, at least {training['low']:.3f}",
            f"above the best baseline ({training['best_baseline']:.3f}), evaluable",
            not against,
            evaluation=True,
        ),
        against_champion(cfg, training, serving),
    ]
    limit = cfg.deploy.parity_tolerance
    for path in parity.EXACT:
        worst = agreed.apart(path)
        told = f"{worst.max():.1e}" + ("" if worst.max() <= limit else f" ({agreed.names[int(worst.argmax())]})")
        found.append(Check(f"{path} against Keras", told, f"{limit:.0e} at most", bool(worst.max() <= limit)))
    for variant in ("float16", "int8"):
        share = agreed.agreement(parity.VARIANTS[variant])
        found.append(
            Check(
                f"{variant} says the same",
                f"{share:.1%}",
                f"{cfg.deploy.int8_agreement:.0%} at least",
                share >= cfg.deploy.int8_agreement,
            )
        )
    lost, one = accuracies["float32"] - accuracies["int8"], 1 / max(1, sum(map(sum, training["confusion"])))
    found.append(
        Check(
            "int8 loses accuracy",
            f"{lost:+.4f}",
            f"{cfg.deploy.int8_may_lose} at most, or one image",
            lost <= max(cfg.deploy.int8_may_lose, one) + 1e-9,
        )
    )
    largest = max(entry["bytes"] for entry in manifest["variants"].values()) / 1e6
    found.append(
        Check(
            "size of an edge file", f"{largest:.2f} MB", f"{cfg.deploy.max_mb} MB at most", largest <= cfg.deploy.max_mb
        )
    )
    slowest = min(entry["p50_ms"] for entry in manifest["variants"].values())
    found.append(
        Check(
            "latency of the quickest, here",
            f"{slowest:.1f} ms",
            f"{cfg.deploy.max_latency_ms} ms at most",
            slowest <= cfg.deploy.max_latency_ms,
        )
    )
    return found


def objection(training):
    """Why the evaluation does not let a model become champion, in words; "" where it does. training: the figures of 03_train."""
    if training["verdict"] == "not evaluable":
        return f"not evaluable: {training['reasons'][0]}"
    if training["low"] <= training["best_baseline"]:
        return (
            f"accuracy of {training['accuracy']:.3f} (at least {training['low']:.3f}) is not above the best baseline "
            f"({training['best_baseline']:.3f})"
        )
    return ""


def against_champion(cfg, training, serving):
    """Challenger against champion on the same held-out episodes, as 03_train compared them."""

    def check(found, passed):
        return Check(
            "against the champion",
            found,
            f"loses {cfg.deploy.may_lose} at most, and not surely",
            passed,
            evaluation=True,
        )

    if serving is None:
        return check("no model serves yet", True)
    if serving.run_id == training["run_id"]:
        return check(f"version {serving.version} is the same training", True)
    compared = training.get("champion") or {}
    if compared.get("version") != str(serving.version):
        return check(
            f"version {serving.version} serves, and 03_train compared with {compared.get('version', 'none')}: run it again",
            False,
        )
    if "difference" not in compared:
        return check(compared["note"], True)
    told = f"{compared['difference']:+.3f} [{compared['low']:+.3f}, {compared['high']:+.3f}] on {compared['images']} images"
    return check(
        told + (f"; {compared['note']}" if compared["note"] else ""),
        compared["difference"] >= -cfg.deploy.may_lose and compared["high"] >= 0,
    )


def decide(cfg, training, found):
    """Decision by a list of Checks: all must pass. deploy.promote_anyway overrules those of the evaluation, and stays with the version."""
    failed = [check for check in found if not check.passed]
    broken = [check for check in failed if not check.evaluation]
    if broken:
        return Decision(
            False, "; ".join(f"{check.name}: {check.found}, wanted: {check.wanted}" for check in broken), "", found
        )
    if failed:
        said = "; ".join(
            check.found if check.name == "evaluation" else f"{check.name}: {check.found}" for check in failed
        )
        word = cfg.deploy.promote_anyway
        if not word:
            return Decision(False, said, "", found)
        return Decision(True, f"promoted against the evaluation, by word of {word} (it says: {said})", word, found)
    return Decision(
        True,
        f"{training['verdict']}; accuracy {training['accuracy']:.3f} against {training['best_baseline']:.3f} of the best baseline; "
        f"all {len(found)} checks passed",
        "",
        found,
    )
