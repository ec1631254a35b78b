"""How Auto Loader finds new files on Databricks: its options, made of the config.

Names and rules from Databricks' reference of Auto Loader options: useManagedFileEvents needs Databricks Runtime 14.3 LTS or later, and takes neither
useNotifications nor backfillInterval beside it; includeExistingFiles is looked at only when a stream starts for the first time.
"""

from lakevision.platform import config, workspace

SECRETS = (
    "clientSecret",
    "privateKey",
    "privateKeyId",
    "connectionString",
    "awsSecretKey",
    "awsAccessKey",
)  # the end of an option's name
OURS = (
    "cloudFiles.format",
    "cloudFiles.includeExistingFiles",
    "cloudFiles.maxFilesPerTrigger",
    "cloudFiles.useManagedFileEvents",
    "cloudFiles.useNotifications",
    "cloudFiles.backfillInterval",
)


def options(cfg):
    """{option: value, text} for format("cloudFiles"), secrets still as references: workspace.revealed() is for whoever sets them.

    Raises config.ConfigError for settings that don't go together, for an option that another setting decides, and for a secret written out."""
    ingest = cfg.ingest
    if ingest.backfill_interval and ingest.listing != "notification":
        raise config.ConfigError(
            f"ingest.backfill_interval goes with ingest.listing: notification, not with {ingest.listing}: a directory is listed "
            "whole anyway, and Databricks checks its file events by itself"
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
    for word in ingest.loader_options:
        name, equals, value = word.partition("=")
        if name == "databricks.serviceCredential":
            raise config.ConfigError(
                f"ingest.loader_options: {name} needs a later Databricks Runtime than 15.4, the last with Horovod: set ingest.listing: "
                "events, for which Unity Catalog's own credential is enough; or cloudFiles.roleArn, or keys of a secret scope"
            )
        if not equals or not name.startswith("cloudFiles."):
            raise config.ConfigError(f"ingest.loader_options: {name!r} is not cloudFiles.<option>=<value>")
        if name in OURS:
            raise config.ConfigError(
                f"ingest.loader_options: {name} follows from ingest.listing, backfill_interval, max_files_per_batch; set those"
            )
        if name.endswith(SECRETS) and not workspace.SECRET.fullmatch(value):
            raise config.ConfigError(
                f"ingest.loader_options: {name} is a secret, and all who see this config or MLflow would read it: "
                "put it into a secret scope (databricks secrets put-secret <scope> <key>), and here {{secrets/<scope>/<key>}}"
            )
        made[name] = value
    return made


def reader(spark, cfg):
    """A stream's reader of files that land, with all of its options but schema and path. Runs on Databricks only."""
    return spark.readStream.format("cloudFiles").options(
        **{name: workspace.revealed(value) for name, value in options(cfg).items()}
    )
