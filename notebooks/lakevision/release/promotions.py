"""Which version serves: gate, promotion by hand, rollback; each decision is a row of the ledger.

A decision adds its row first, then tags the version, then moves the alias. The number of a row is unique: of two
simultaneous decisions, one waits for the other and sees its row. The alias follows the newest row that promoted, so an
interrupted decision is finished by the next one, or by `settle`.
"""

import json
from dataclasses import asdict
from datetime import UTC, datetime

from pyspark.sql import Row, SparkSession
from pyspark.sql import functions as F

from lakevision.platform import config, workspace
from lakevision.registry import model_registry
from lakevision.release import edge_bundle, gate
from lakevision.release.ledger import Entry, NotPossible, RegistryDown, Stale, add_row, ask_registry, rows, serving

__all__ = ["NotPossible", "RegistryDown", "Stale", "gated", "promote", "rollback", "rows", "serving", "settle", "why"]
TAG = 1000  # characters of a tag that Unity Catalog keeps; the row keeps the whole text


def gated(
    spark: SparkSession,
    cfg: config.Config,
    places: workspace.Places,
    version: str,
    decision: gate.Decision,
    compared_with: str | None,
) -> str:
    """Records and carries out the gate's decision on a version. Returns the version's alias.

    compared_with: the champion's version at the gate, "" for none. Raises Stale, RegistryDown.
    """
    checks = json.dumps([asdict(check) for check in decision.checks])
    who, forced = f"04_deploy, {workspace.user(spark)}", bool(decision.word)
    _record(
        spark,
        cfg,
        places,
        Entry("gate", version, decision.promoted, forced, who, decision.reason, checks, compared_with),
    )
    return "champion" if decision.promoted else "challenger"


def promote(
    spark: SparkSession, cfg: config.Config, places: workspace.Places, version: str, who: str, why: str
) -> None:
    """Makes a version champion by hand. If no gate has passed the version, the promotion is recorded as forced.

    Raises NotPossible if the gate found a technical fault, such as paths that differ: such a version can't be forced.
    """
    decisions = rows(spark, places, cfg).where(F.col("version") == version)
    judged = decisions.where(F.col("action") == "gate").orderBy(F.desc("number")).first()
    checks = json.loads(judged["checks"] or "[]") if judged else []
    broken = [check for check in checks if not check["passed"] and not check["evaluation"]]
    if broken:
        faults = "; ".join(f"{check['name']}: {check['found']}, wanted: {check['wanted']}" for check in broken)
        raise NotPossible(
            f"version {version} is broken, and can't be forced: {faults}. "
            "Repair the fault or change its limit, and run 04_deploy"
        )
    passed = decisions.where(F.col("promoted") & ~F.col("forced")).count() > 0
    _record(spark, cfg, places, Entry("promote", version, True, not passed, who, why))


def rollback(
    spark: SparkSession, cfg: config.Config, places: workspace.Places, version: str, who: str, why: str
) -> str:
    """Returns to an earlier champion and returns its version. version: "" for the champion before. Raises
    NotPossible.
    """
    history = rows(spark, places, cfg).where("promoted").orderBy("number").collect()
    champion = ask_registry(lambda: serving(cfg), "nothing was decided")
    if not version:
        version = _before(history, champion)
        if not version:
            raise NotPossible(f"version {champion or '(none)'} has nothing before it to return to")
    if version not in {row["version"] for row in history}:
        champions = sorted({row["version"] for row in history}, key=int)
        raise NotPossible(
            f"version {version} has never been champion ({', '.join(champions) or 'none has'}): promote it instead"
        )
    forced = next(row["forced"] for row in reversed(history) if row["version"] == version)
    _record(spark, cfg, places, Entry("rollback", version, True, forced, who, why))
    return version


def _before(history: list[Row], champion: str) -> str:
    """The champion before this one, "" for none. history: rows that promoted, oldest first.

    A version that was rolled back does not return by another rollback.
    """
    served: list[str] = []
    for row in history:
        if row["action"] == "rollback" and row["version"] in served:
            while served[-1] != row["version"]:
                served.pop()
        elif served[-1:] != [row["version"]]:
            served.append(row["version"])
    if champion not in served:
        return served[-1] if served else ""  # the alias was moved by hand
    while served[-1] != champion:
        served.pop()
    return served[-2] if len(served) > 1 else ""


def _record(spark: SparkSession, cfg: config.Config, places: workspace.Places, entry: Entry) -> None:
    """Adds a decision's row, tags the version and moves the alias. Raises NotPossible, Stale, RegistryDown."""
    from mlflow import MlflowClient

    name, version = model_registry.name(cfg), entry.version
    nothing_done = f"nothing was decided on version {version}"
    registered = ask_registry(lambda: MlflowClient().get_model_version(name, version), nothing_done, version)
    number = add_row(spark, cfg, places, entry, registered.run_id)
    row_done = (
        f"decision {number} on version {version} is in `promotions`, but the alias was not moved: "
        "`settle` does it when the registry is back"
    )
    tags = {
        "promoted": str(entry.promoted).lower(),
        "reason": entry.reason,
        "decided_by": entry.who,
        "decision": str(number),
    }
    words = registered.tags.get("promoted_anyway", "")
    if entry.forced and not (words and entry.action == "rollback"):  # a rollback keeps the earlier words
        tags["promoted_anyway"] = f"{words}; {entry.who}: {entry.reason}".removeprefix("; ")
    for key, value in tags.items():
        _set_tag(name, version, key, value, row_done)
    if entry.promoted:
        ask_registry(lambda: settle(spark, cfg, places), row_done)


def _set_tag(name: str, version: str, key: str, value: str, done: str) -> None:
    from mlflow import MlflowClient

    ask_registry(lambda: MlflowClient().set_model_version_tag(name, version, key, value[:TAG]), done)


def settle(spark: SparkSession, cfg: config.Config, places: workspace.Places) -> str:
    """Points champion at the version of the newest promotion, in the registry and for devices.

    Returns the version, "" for none.
    """
    while True:
        newest = rows(spark, places, cfg).where("promoted").orderBy(F.desc("number")).first()
        if newest is None:
            return ""
        version = newest["version"]
        model_registry.set_alias(cfg, "champion", version)
        if edge_bundle.published(places.edge, version) == model_registry.name(cfg):
            edge_bundle.point(places.edge, "champion", version)
        if rows(spark, places, cfg).where("promoted").agg(F.max("number")).first()[0] == newest["number"]:
            return version


def why(spark: SparkSession, cfg: config.Config, places: workspace.Places) -> str:
    """Why the current version serves, in a few lines. Raises RegistryDown."""
    name = model_registry.name(cfg)
    champion = ask_registry(lambda: serving(cfg), "the ledger was not read")
    newest = rows(spark, places, cfg).where("promoted").orderBy(F.desc("number")).first()
    if not champion and newest is None:
        held = rows(spark, places, cfg).orderBy(F.desc("number")).first()
        reason = f"; version {held['version']} was held back: {held['reason']}" if held else ""
        return f"no version of {name} serves{reason}"
    if newest is None or newest["version"] != champion:
        return (
            f"version {champion or '(none)'} of {name} is champion, but the newest promotion names "
            f"{newest['version'] if newest else 'none'}: "
            "the alias was moved by hand, or a decision was interrupted (`settle` finishes it)"
        )
    lines = [
        f"version {champion} of {name} serves since {_utc(newest['decided_at']):%d %B %Y, %H:%M} UTC, "
        f"by {newest['action']} of {newest['who']}",
        f"because: {newest['reason']}",
        f"before it: version {newest['previous'] or '(none)'}",
    ]
    forced = rows(spark, places, cfg).where((F.col("version") == champion) & F.col("forced")).orderBy("number").first()
    if forced:
        when = f"{_utc(forced['decided_at']):%d %B %Y}"
        lines.append(f"it was promoted against the gate on {when} by {forced['who']}: {forced['reason']}")
    if edge_bundle.published(places.edge, champion) != name:
        lines.append("devices keep their present version: this one has no edge files (04_deploy makes them)")
    return "\n".join(lines)


def _utc(naive: datetime) -> datetime:
    """Converts a time from Spark, which arrives in Python as local time without a zone."""
    return naive.astimezone(UTC)
