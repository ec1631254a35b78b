"""Unity Catalog and its volumes, from several packages: promotion, login, epochs of the ranks, checkpoints."""

import os
from types import SimpleNamespace

import numpy as np
import pytest
from unity_catalog import Catalog, connected

from lakevision.platform import config
from lakevision.release import promotions
from lakevision.serving.rest import local_service
from lakevision.training import checkpoint, ranks


@pytest.fixture
def workspace_of(monkeypatch):
    """(Catalog) -> Config of a lakehouse with this registry."""
    with connected(monkeypatch) as connect:
        yield connect


def test_promotion_moves_the_alias_and_its_tags_fit(workspace_of, lakehouse, monkeypatch):
    from lakevision.ingest import tables
    from lakevision.release import gate

    catalog = Catalog()
    cfg = workspace_of(catalog)
    spark, make = lakehouse
    places = make()[1]
    tables.create(spark, places)
    promotions.gated(spark, cfg, places, "1", gate.Decision(True, "all checks passed", "", []), "")
    promotions.promote(spark, cfg, places, "2", "A. Person", "long " * 500)
    assert catalog.aliases["champion"] == "2" and catalog.versions["1"]["reason"] == "all checks passed"
    assert (
        catalog.versions["2"]["promoted_anyway"].startswith("A. Person: long")
        and len(catalog.versions["2"]["reason"]) == 1000
    )
    assert spark.table(places.table("promotions")).where("number = 2").first()["reason"] == "long " * 500
    promotions.rollback(spark, cfg, places, "", "A. Person", "enough")
    assert catalog.aliases["champion"] == "1"


def test_local_service_gets_the_login_of_the_notebook(tmp_path, monkeypatch):
    """The login comes from a file, as in a notebook. Without a Databricks login, no variable is added."""
    import mlflow  # noqa: F401 - its import calls Popen, which is replaced below

    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "login").write_text("[DEFAULT]\nhost = https://lab.example\ntoken = dapi-good\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "login"))
    given = []

    class Started:
        def __init__(self, command, env, **_):
            given.append(env)
            self.stdout = open(os.devnull)  # noqa: SIM115 - the service's output, closed with the process

        def wait(self, *_):
            return 1

        def terminate(self):
            pass

    monkeypatch.setattr(local_service.subprocess, "Popen", Started)
    for uri in ("databricks", "sqlite:///somewhere.db"):
        with (
            pytest.raises(local_service.NoService, match="status 1"),
            local_service.service(SimpleNamespace(mlflow_uri=uri), "1", []),
        ):
            pass
    more = [
        {name: value for name, value in env.items() if os.environ.get(name) != value and name != "PYTHONPATH"}
        for env in given
    ]
    assert more == [
        {
            "DATABRICKS_TOKEN": "dapi-good",
            "DATABRICKS_HOST": "https://lab.example",
            "MLFLOW_TRACKING_URI": "databricks",
        },
        {},
    ]


def test_driver_logs_epochs_because_ranks_have_no_login(workspace_of, tmp_path, monkeypatch):
    catalog, jobs = Catalog(), []
    workspace_of(catalog)
    history = [{"loss": 0.5, "val_loss": 0.6}, {"loss": 0.25, "val_loss": 0.4}]

    def launched(spark, job):
        jobs.append(job)
        return [("same", SimpleNamespace(history=history), 0.0), ("same", None, 0.0)]

    monkeypatch.setattr(ranks, "_launch", launched)
    monkeypatch.setattr(ranks.spark_session, "slots", lambda *_: 2)
    cache = SimpleNamespace(folder=str(tmp_path / "key" / "a"))
    ranks.train(
        None,
        config.load("local", ["training.ranks=2", "training.engine=collectives"]),
        SimpleNamespace(root=str(tmp_path)),
        cache,
        "setting",
        {"uri": "databricks", "run_id": "r1"},
    )
    assert jobs[0]["log"] is None
    assert catalog.logged == [("r1", key, step, history[step][key]) for step in (0, 1) for key in ("loss", "val_loss")]


def test_checkpoint_is_written_without_seek(tmp_path, monkeypatch):
    """A file on a Databricks volume cannot seek, so the checkpoint is written front to back."""
    network = SimpleNamespace(
        get_weights=lambda: [np.arange(1000.0).reshape(50, 20), np.ones(3)],
        set_weights=lambda weights: back.extend(weights),
    )
    optimizer, back, opened = SimpleNamespace(variables=[]), [], []

    class Forward:
        def __init__(self, path, mode):
            self.file = os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT), "wb")
            opened.append(path)

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def __getattr__(self, name):
            assert name in ("write", "flush", "fileno"), f"{name} of a file on a volume"
            return getattr(self.file, name)

    for module in (checkpoint, checkpoint.files):
        monkeypatch.setattr(module, "open", Forward, raising=False)
    checkpoint.save(tmp_path / "kept.npz", network, optimizer, {"history": [1], "best": None})
    assert len(opened) == 1
    assert checkpoint.restore(tmp_path / "kept.npz", network, optimizer)["history"] == [1]
    assert np.array_equal(back[0], network.get_weights()[0])
