"""Which version serves, and why: every decision is a row of `promotions`, a tag on the version, and then the alias.

The row comes first and its number is unique: of two decisions at once one waits for the other and sees it. The alias follows the newest row that
promoted, so a decision that was cut short between the two is finished by the next one, or by `settle`.
"""

import json
from dataclasses import asdict
from datetime import UTC

from pyspark.sql import functions as F

from lakevision.platform import workspace
from lakevision.registry import model_registry
from lakevision.release import edge_export

TAG = 1000  # letters of a tag that Unity Catalog keeps; the row has all
TRIES = 10  # of a row that others' rows come before


class NotPossible(ValueError):
    """A version can't be promoted or returned to; the message says why and what can be done."""


class Stale(NotPossible):
    """Another version became champion since the gate compared with the one before; run 04_deploy again."""


class RegistryDown(RuntimeError):
    """The registry can't be reached; the message says what was done and what was not."""


def gated(spark, cfg, places, version, decision, compared_with):
    """Writes down a gate.Decision on a version and does it. compared_with: the champion's version at the gate, "" for none.

    Returns the alias that the version has. Raises Stale, RegistryDown.
    """
    if _write(
        spark,
        cfg,
        places,
        "gate",
        version,
        decision.promoted,
        bool(decision.word),
        f"04_deploy, {_who(spark)}",
        decision.reason,
        json.dumps([asdict(check) for check in decision.checks]),
        compared_with,
    ):
        return "champion"
    return "challenger"


def promote(spark, cfg, places, version, who, why):
    """Makes a version champion by hand. Against the evaluation's word, or where no gate was asked, it is forced, and says so for ever.

    Raises NotPossible where the gate found something broken, such as paths that differ: nobody's word mends that."""
    asked = (
        rows(spark, places, cfg)
        .where((F.col("version") == version) & (F.col("action") == "gate"))
        .orderBy(F.desc("number"))
        .first()
    )
    broken = (
        [check for check in json.loads(asked["checks"] or "[]") if not check["passed"] and not check["evaluation"]]
        if asked
        else []
    )
    if broken:
        raise NotPossible(
            f"version {version} is broken, and nobody's word mends that: "
            + "; ".join(f"{check['name']}: {check['found']}, wanted: {check['wanted']}" for check in broken)
            + ". Mend it, or its limit, and run 04_deploy"
        )
    passed = (
        rows(spark, places, cfg).where((F.col("version") == version) & F.col("promoted") & ~F.col("forced")).count() > 0
    )
    _write(spark, cfg, places, "promote", version, True, not passed, who, why)


def rollback(spark, cfg, places, version, who, why):
    """Returns to an earlier champion; version: "" for the one before. Returns the version. Raises NotPossible."""
    history = rows(spark, places, cfg).where("promoted").orderBy("number").collect()
    now = answered(lambda: serving(cfg), "nothing was decided")
    if not version:
        version = _before(history, now)
        if not version:
            raise NotPossible(f"version {now or '(none)'} has nothing before it to return to")
    if version not in {row["version"] for row in history}:
        champions = sorted({row["version"] for row in history}, key=int)
        raise NotPossible(
            f"version {version} has never been champion ({', '.join(champions) or 'none has'}): promote it instead"
        )
    forced = next(row["forced"] for row in reversed(history) if row["version"] == version)
    _write(spark, cfg, places, "rollback", version, True, forced, who, why)
    return version


def _before(history, now):
    """The champion before `now`, "" for none. history: rows that promoted, oldest first. What was rolled back does not come back by another rollback."""
    served = []
    for row in history:
        if row["action"] == "rollback" and row["version"] in served:
            while served[-1] != row["version"]:
                served.pop()
        elif served[-1:] != [row["version"]]:
            served.append(row["version"])
    if now not in served:
        return served[-1] if served else ""  # the alias was moved by hand
    while served[-1] != now:
        served.pop()
    return served[-2] if len(served) > 1 else ""


def _write(spark, cfg, places, action, version, promoted, forced, who, reason, checks=None, compared_with=None):
    """Adds a row, tags the version, moves the alias. Returns promoted."""
    from delta.tables import DeltaTable
    from mlflow import MlflowClient

    found = answered(
        lambda: MlflowClient().get_model_version(model_registry.name(cfg), version),
        f"nothing was decided on version {version}",
        version,
    )
    for attempt in range(TRIES):
        previous = answered(lambda: serving(cfg), f"nothing was decided on version {version}")
        if promoted and compared_with is not None and (compared_with or "") != previous:
            raise Stale(
                f"version {previous or 'none'} serves, and version {version} was compared with {compared_with or 'none'}: run 04_deploy again"
            )
        number = (spark.table(places.table("promotions")).agg(F.max("number")).first()[0] or 0) + 1
        row = spark.createDataFrame(
            [
                (
                    number,
                    action,
                    model_registry.name(cfg),
                    version,
                    promoted,
                    forced,
                    who,
                    reason,
                    previous or None,
                    found.run_id,
                    checks,
                )
            ],
            "number long, action string, model string, version string, promoted boolean, forced boolean, who string, reason string, "
            "previous string, run_id string, checks string",
        ).withColumn("decided_at", F.current_timestamp())
        try:
            merge = (
                DeltaTable.forName(spark, places.table("promotions"))
                .alias("old")
                .merge(row.alias("new"), "old.number = new.number")
            )
            merge.whenNotMatchedInsertAll().execute()
        except Exception as error:
            if "Concurrent" not in str(error) or attempt == TRIES - 1:
                raise
            continue
        mine = spark.table(places.table("promotions")).where(F.col("number") == number).first()
        if (mine["version"], mine["who"], mine["reason"]) == (version, who, reason):
            break
    else:
        raise NotPossible(
            f"nothing was decided on version {version}: {TRIES} other decisions came before it one after the other; try again"
        )
    done = f"decision {number} on version {version} is in `promotions`, but the alias was not moved: `settle` does it when the registry is back"
    tags = {"promoted": str(promoted).lower(), "reason": reason, "decided_by": who, "decision": str(number)}
    words = found.tags.get("promoted_anyway", "")
    if forced and not (words and action == "rollback"):  # a rollback to it keeps whose word it was
        tags["promoted_anyway"] = f"{words}; {who}: {reason}".removeprefix("; ")
    answered(
        lambda: [
            MlflowClient().set_model_version_tag(model_registry.name(cfg), version, key, value[:TAG])
            for key, value in tags.items()
        ],
        done,
    )
    if promoted:
        answered(lambda: settle(spark, cfg, places), done)
    return promoted


def settle(spark, cfg, places):
    """Points champion, in the registry and where devices read, at the version that the newest promotion names. Returns it, "" for none."""
    while True:
        newest = rows(spark, places, cfg).where("promoted").orderBy(F.desc("number")).first()
        if newest is None:
            return ""
        version = newest["version"]
        model_registry.set_alias(cfg, "champion", version)
        if edge_export.published(places.edge, version) == model_registry.name(cfg):
            edge_export.point(places.edge, "champion", version)
        if rows(spark, places, cfg).where("promoted").agg(F.max("number")).first()[0] == newest["number"]:
            return version


def serving(cfg):
    """The version that champion points at, "" for none."""
    found = model_registry.version_of(cfg, "champion")
    return str(found.version) if found else ""


def rows(spark, places, cfg):
    """The decisions on this model, a DataFrame."""
    return spark.table(places.table("promotions")).where(F.col("model") == model_registry.name(cfg))


def why(spark, cfg, places):
    """Why the version that serves does, in a few lines."""
    now = answered(lambda: serving(cfg), "nothing was asked of the ledger")
    newest = rows(spark, places, cfg).where("promoted").orderBy(F.desc("number")).first()
    if not now and newest is None:
        held = rows(spark, places, cfg).orderBy(F.desc("number")).first()
        return f"no version of {model_registry.name(cfg)} serves" + (
            f"; version {held['version']} was held back: {held['reason']}" if held else ""
        )
    if newest is None or newest["version"] != now:
        return (
            f"version {now or '(none)'} of {model_registry.name(cfg)} is champion, but the newest promotion names {newest['version'] if newest else 'none'}: "
            "the alias was moved by hand, or a decision was cut short (`settle` finishes it)"
        )
    lines = [
        f"version {now} of {model_registry.name(cfg)} serves since {_utc(newest['decided_at']):%d %B %Y, %H:%M} UTC, by {newest['action']} of {newest['who']}",
        f"because: {newest['reason']}",
        f"before it: version {newest['previous'] or '(none)'}",
    ]
    forced = rows(spark, places, cfg).where((F.col("version") == now) & F.col("forced")).orderBy("number").first()
    if forced:
        lines.append(
            f"it was promoted against the gate on {_utc(forced['decided_at']):%d %B %Y} by {forced['who']}: {forced['reason']}"
        )
    if edge_export.published(places.edge, now) != model_registry.name(cfg):
        lines.append("devices stay with what they have: it has no edge files (04_deploy makes them)")
    return "\n".join(lines)


def _utc(naive):
    """A time that Spark hands to Python is this machine's."""
    return naive.astimezone(UTC)


def _who(spark):
    return workspace.user(spark)


def answered(function, done, version=""):
    """What a call to the registry gives. Raises NotPossible for a version it does not know, RegistryDown where it does not answer."""
    from mlflow.exceptions import MlflowException

    try:
        return function()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and version:
            raise NotPossible(f"there is no version {version} of this model: {error.message[:200]}") from error
        raise RegistryDown(f"the registry does not answer: {str(error)[:300]}; {done}") from error
