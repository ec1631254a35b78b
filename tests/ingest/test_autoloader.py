"""Auto Loader options follow from the settings, secrets stay references until Spark gets them."""

import json

import pytest

from lakevision.ingest import autoloader, stream
from lakevision.platform import config, workspace
from lakevision.registry import tracking

PLAIN = {
    "cloudFiles.format": "binaryFile",
    "cloudFiles.includeExistingFiles": "true",
    "cloudFiles.maxFilesPerTrigger": "10000",
}
SECRET = "cloudFiles.clientSecret={{secrets/lakevision/client-secret}}"


def load(*settings):
    return config.load("local", list(settings))


@pytest.mark.parametrize(
    "settings, more",
    [
        pytest.param([], {}, id="directory"),
        pytest.param(["ingest.max_files_per_batch=50"], {"cloudFiles.maxFilesPerTrigger": "50"}, id="batches"),
        pytest.param(["ingest.listing=events"], {"cloudFiles.useManagedFileEvents": "true"}, id="file events"),
        pytest.param(
            ["ingest.listing=notification", "ingest.backfill_interval=1 day"],
            {"cloudFiles.useNotifications": "true", "cloudFiles.backfillInterval": "1 day"},
            id="notification",
        ),
        pytest.param(
            [
                "ingest.listing=notification",
                f"ingest.loader_options={json.dumps(['cloudFiles.queueUrl=https://sqs/1?a=b', SECRET])}",
            ],
            {
                "cloudFiles.useNotifications": "true",
                "cloudFiles.queueUrl": "https://sqs/1?a=b",
                "cloudFiles.clientSecret": "{{secrets/lakevision/client-secret}}",
            },
            id="queue and secret",
        ),
    ],
)
def test_settings_become_options(settings, more):
    assert autoloader.options(load(*settings)) == PLAIN | more


@pytest.mark.parametrize(
    "settings, message",
    [
        pytest.param(["ingest.listing=event"], "did you mean 'events'", id="unknown listing"),
        pytest.param(
            ["ingest.backfill_interval=1 day"],
            "goes with ingest.listing: notification, not with directory",
            id="backfill of a directory",
        ),
        pytest.param(
            ["ingest.listing=events", "ingest.backfill_interval=1 day"],
            "Databricks checks its file events by itself",
            id="backfill of file events",
        ),
        pytest.param(
            ["ingest.loader_options=[queueUrl=x]"],
            "'queueUrl' is not cloudFiles.<option>=<value>",
            id="not Auto Loader's",
        ),
        pytest.param(
            ["ingest.loader_options=[databricks.serviceCredential=porch]"],
            "needs a later Databricks Runtime",
            id="service credential",
        ),
        pytest.param(
            ["ingest.loader_options=[cloudFiles.queueUrl]"], "is not cloudFiles.<option>=<value>", id="no value"
        ),
        pytest.param(
            ["ingest.loader_options=[cloudFiles.useNotifications=true]"], "follows from ingest.listing", id="set twice"
        ),
        pytest.param(
            ["ingest.loader_options=[cloudFiles.clientSecret=hunter2]"],
            "put the value into a secret scope",
            id="secret in plain text",
        ),
        pytest.param(
            ["ingest.loader_options=['cloudFiles.connectionString=x{{secrets/a/b}}']"],
            "put the value into a secret scope",
            id="secret in part",
        ),
    ],
)
def test_contradicting_settings_raise_an_error(settings, message):
    with pytest.raises(config.ConfigError) as caught:
        autoloader.options(load(*settings))
    assert message in str(caught.value) and "hunter2" not in str(caught.value)


class Reader:
    """The part of spark.readStream that takes options; cloudFiles exists on Databricks only."""

    def __init__(self):
        self.readStream, self.taken = self, {}

    def format(self, name):
        self.taken["format"] = name
        return self

    def options(self, **options):
        self.taken.update(options)
        return self


def test_secret_reaches_spark_but_not_config_or_mlflow(monkeypatch, tmp_path):
    import mlflow

    cfg = load(
        "ingest.listing=notification", f"ingest.loader_options={json.dumps([SECRET])}", f"storage.root={tmp_path}"
    )
    monkeypatch.setattr(workspace, "on_databricks", lambda: True)
    secrets = type("Secrets", (), {"get": lambda self, scope, key: f"the secret {scope} {key}"})()
    monkeypatch.setattr(workspace, "_notebook_global", lambda name: type("Dbutils", (), {"secrets": secrets})())
    taken = autoloader.reader(Reader(), cfg).taken
    assert taken["format"] == "cloudFiles" and taken["cloudFiles.clientSecret"] == "the secret lakevision client-secret"
    assert "the secret" not in repr(cfg) and "the secret" not in json.dumps(autoloader.options(cfg))
    monkeypatch.setattr(workspace, "on_databricks", lambda: False)

    import pandas as pd

    with mlflow.start_run(experiment_id=tracking.start(cfg, workspace.places(cfg))) as run:
        tracking.record(cfg, 1, pd.DataFrame(columns=["path", "sha256", "label", "episode", "split"]))
    assert mlflow.get_run(run.info.run_id).data.params["ingest.loader_options"] == f"('{SECRET}',)"


@pytest.mark.spark
def test_open_source_spark_ignores_auto_loader_settings(lakehouse):
    from lakevision.ingest import capture

    spark, make = lakehouse
    cfg, places = make(
        "capture.photographs=2",
        "capture.size=64",
        "ingest.listing=notification",
        "ingest.backfill_interval=1 day",
        f"ingest.loader_options={json.dumps([SECRET])}",
    )
    capture.land(cfg, places)
    assert stream.ingest(spark, cfg, places).images == 2
