"""From a judged model to one that serves: the edge bundle, the gate, the alias."""

from dataclasses import dataclass

import pandas as pd

from lakevision import cache, edge, feed, registry


@dataclass
class Decision:
    """Whether the model becomes champion, and why, in words. word: of whoever promotes it against the evaluation; "" where the gate lets it."""

    promoted: bool
    reason: str
    word: str = ""


def edge_bundle(cfg, where, training, saved, version):
    """Exports a version's LiteRT files to where.edge. training: the figures of 03_train; saved: registry.Files. Returns (card, manifest)."""
    pixels = feed.load(cache.opened(training["cache"]), "train").pixels
    # Spread over the training share, so that day and night are both in it.
    sample = pixels[:: max(1, len(pixels) // cfg.deploy.calibration_images)][:cfg.deploy.calibration_images]
    card = {**saved.card, "model": registry.name(cfg), "version": version}
    return card, edge.export(saved.saved_model, sample, where.edge, card)


def variants(manifest):
    """The manifest's files as a table."""
    return pd.DataFrame([{"variant": name, "kB": round(entry["bytes"] / 1000, 1), "input": entry["input"], "sha256": entry["sha256"][:16]}
                         for name, entry in manifest["variants"].items()])


def decide(cfg, training, parity):
    """The gate: evaluation's verdict, equal float32 paths, an int8 that says the same. Returns Decision.

    deploy.promote_anyway overrules the evaluation, and stays with the version; it does not overrule paths that disagree.
    """
    against = objection(training)
    if against and not cfg.deploy.promote_anyway:
        return Decision(False, against)
    if parity.largest > cfg.deploy.parity_tolerance:
        return Decision(False, f"float32 paths differ by {parity.largest:.1e}, deploy.parity_tolerance is {cfg.deploy.parity_tolerance:.1e}")
    if parity.int8_agreement < cfg.deploy.int8_agreement:
        return Decision(False, f"int8 agrees on {parity.int8_agreement:.1%}, deploy.int8_agreement asks for {cfg.deploy.int8_agreement:.1%}")
    if against:
        word = cfg.deploy.promote_anyway
        return Decision(True, f"promoted against the evaluation, by word of {word} (it says: {against})", word)
    return Decision(True, f"{training['verdict']}; accuracy {training['accuracy']:.3f} against {training['best_baseline']:.3f} of the best baseline; "
                          "all paths agree")


def objection(training):
    """Why the evaluation does not let a model become champion, in words; "" where it does. training: the figures of 03_train."""
    if training["verdict"] == "not evaluable":
        return f"not evaluable: {training['reasons'][0]}"
    if training["low"] <= training["best_baseline"]:
        return (f"accuracy of {training['accuracy']:.3f} (at least {training['low']:.3f}) is not above the best baseline "
                f"({training['best_baseline']:.3f})")
    return ""


def promote(cfg, version, decision):
    """Points champion at the version if the decision allows it, and writes the decision on the version. Returns the alias it has."""
    from mlflow import MlflowClient

    client = MlflowClient()
    client.set_model_version_tag(registry.name(cfg), version, "promoted", str(decision.promoted).lower())
    client.set_model_version_tag(registry.name(cfg), version, "reason", decision.reason)
    if decision.word:
        client.set_model_version_tag(registry.name(cfg), version, "promoted_anyway", decision.word)
    if not decision.promoted:
        return "challenger"
    registry.set_alias(cfg, "champion", version)
    return "champion"
