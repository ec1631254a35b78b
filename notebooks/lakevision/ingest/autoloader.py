"""Options of Auto Loader, which finds new files on Databricks, made from the settings.

Names and rules are from Databricks' reference of Auto Loader options: useManagedFileEvents needs Databricks Runtime
14.3 LTS or later and excludes useNotifications and backfillInterval; includeExistingFiles counts only when a stream
starts for the first time.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from lakevision.platform import config, workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession
    from pyspark.sql.streaming import DataStreamReader

# Options whose name ends in one of these words are secrets.
SECRETS = ("clientSecret", "privateKey", "privateKeyId", "connectionString", "awsSecretKey", "awsAccessKey")
# Options that other settings decide.
OURS = (
    "cloudFiles.format",
    "cloudFiles.includeExistingFiles",
    "cloudFiles.maxFilesPerTrigger",
    "cloudFiles.useManagedFileEvents",
    "cloudFiles.useNotifications",
    "cloudFiles.backfillInterval",
)


def options(cfg: config.Config) -> dict[str, str]:
    """{option: value} for format("cloudFiles"). Secrets are still references; reader() reveals them.

    Raises config.ConfigError for settings that exclude each other, for an option that another setting decides, and for
    a secret in plain text.
    """
    ingest = cfg.ingest
    if ingest.backfill_interval and ingest.listing != "notification":
        raise config.ConfigError(
            "ingest.backfill_interval goes with ingest.listing: notification, "
            f"not with {ingest.listing}: a directory is always listed in full, "
            "and Databricks checks its file events by itself"
        )
    made = {
        "cloudFiles.format": "binaryFile",
        "cloudFiles.includeExistingFiles": "true",
        "cloudFiles.maxFilesPerTrigger": str(ingest.max_files_per_batch),
    }
    if ingest.listing == "events":
        made["cloudFiles.useManagedFileEvents"] = "true"
    if ingest.listing == "notification":
        made["cloudFiles.useNotifications"] = "true"
    if ingest.backfill_interval:
        made["cloudFiles.backfillInterval"] = ingest.backfill_interval
    return made | dict(_extra(word) for word in ingest.loader_options)


def _extra(word: str) -> tuple[str, str]:
    """(option, value) of one entry of ingest.loader_options."""
    name, equals, value = word.partition("=")
    if name == "databricks.serviceCredential":
        raise config.ConfigError(
            f"ingest.loader_options: {name} needs a later Databricks Runtime than 15.4, the last with Horovod. Set "
            "ingest.listing: events (Unity Catalog's own credential is enough), or use cloudFiles.roleArn or keys of a "
            "secret scope"
        )
    if not equals or not name.startswith("cloudFiles."):
        raise config.ConfigError(f"ingest.loader_options: {name!r} is not cloudFiles.<option>=<value>")
    if name in OURS:
        raise config.ConfigError(
            f"ingest.loader_options: {name} follows from ingest.listing, backfill_interval and max_files_per_batch; "
            "set those"
        )
    if name.endswith(SECRETS) and not workspace.SECRET.fullmatch(value):
        raise config.ConfigError(
            f"ingest.loader_options: {name} is a secret, and everybody with access to this config or to MLflow could "
            "read it: put the value into a secret scope (databricks secrets put-secret <scope> <key>) and write "
            "{{secrets/<scope>/<key>}} here"
        )
    return name, value


def reader(spark: SparkSession, cfg: config.Config) -> DataStreamReader:
    """A stream reader of landed files, complete but for schema and path. Runs on Databricks only."""
    return spark.readStream.format("cloudFiles").options(
        **{name: workspace.revealed(value) for name, value in options(cfg).items()}
    )
