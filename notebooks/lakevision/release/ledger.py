"""The ledger: the table `promotions`, with one row for each decision on a version."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakevision.platform import config, workspace
from lakevision.registry import model_registry

TRIES = 10  # to add a row while other decisions take its number
SCHEMA = (
    "number long, action string, model string, version string, promoted boolean, forced boolean, who string, "
    "reason string, previous string, run_id string, checks string"
)
T = TypeVar("T")


class NotPossible(ValueError):
    """A version can't be promoted or returned to; the message names the reason and the remedy."""


class Stale(NotPossible):
    """Another version became champion after the gate had compared with the one before; run 04_deploy again."""


class RegistryDown(RuntimeError):
    """The registry can't be reached; the message names what was done and what was not."""


@dataclass(frozen=True)
class Entry:
    """A decision on a version, to be recorded. action: gate, promote or rollback; forced: against the gate; checks: the
    gate's, as JSON; compared_with: the champion's version at the gate, "" for none, None if no comparison is needed.
    """

    action: str
    version: str
    promoted: bool
    forced: bool
    who: str
    reason: str
    checks: str | None = None
    compared_with: str | None = None


def serving(cfg: config.Config) -> str:
    """The version that champion points at, "" for none."""
    champion = model_registry.version_of(cfg, "champion")
    return str(champion.version) if champion else ""


def rows(spark: SparkSession, places: workspace.Places, cfg: config.Config) -> DataFrame:
    """The decisions on this model, with the columns of `promotions`."""
    return spark.table(places.table("promotions")).where(F.col("model") == model_registry.name(cfg))


def add_row(spark: SparkSession, cfg: config.Config, places: workspace.Places, entry: Entry, run_id: str) -> int:
    """Adds a decision to the table and returns its number. Raises NotPossible, Stale, RegistryDown."""
    version, compared = entry.version, entry.compared_with
    table = places.table("promotions")
    for attempt in range(TRIES):
        previous = ask_registry(lambda: serving(cfg), f"nothing was decided on version {version}")
        if entry.promoted and compared is not None and compared != previous:
            raise Stale(
                f"version {previous or 'none'} serves, and version {version} was compared with {compared or 'none'}: "
                "run 04_deploy again"
            )
        number = (spark.table(table).agg(F.max("number")).first()[0] or 0) + 1
        values = (
            number,
            entry.action,
            model_registry.name(cfg),
            version,
            entry.promoted,
            entry.forced,
            entry.who,
            entry.reason,
            previous or None,
            run_id,
            entry.checks,
        )
        if not _insert(spark, table, values, last=attempt == TRIES - 1):
            continue
        row = spark.table(table).where(F.col("number") == number).first()
        if (row["version"], row["who"], row["reason"]) == (version, entry.who, entry.reason):
            return number
    raise NotPossible(
        f"nothing was decided on version {version}: {TRIES} other decisions came before it one after the other; "
        "try again"
    )


def _insert(spark: SparkSession, table: str, values: tuple, last: bool) -> bool:
    """Inserts a row unless its number is taken. Returns False after a conflict of two writers, which it raises if
    last.
    """
    from delta.tables import DeltaTable

    row = spark.createDataFrame([values], SCHEMA).withColumn("decided_at", F.current_timestamp())
    try:
        old = DeltaTable.forName(spark, table).alias("old")
        old.merge(row.alias("new"), "old.number = new.number").whenNotMatchedInsertAll().execute()
    except Exception as error:
        if "Concurrent" not in str(error) or last:
            raise
        return False
    return True


def ask_registry(call: Callable[[], T], done: str, version: str = "") -> T:
    """Returns call(). Raises RegistryDown if the registry does not answer, NotPossible for an unknown version.

    done: what has been done so far, for the message; version: the version that the call is about, if any.
    """
    from mlflow.exceptions import MlflowException

    try:
        return call()
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE") and version:
            raise NotPossible(f"there is no version {version} of this model: {error.message[:200]}") from error
        raise RegistryDown(f"the registry does not answer: {str(error)[:300]}; {done}") from error
