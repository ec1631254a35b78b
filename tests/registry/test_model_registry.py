<<<<<<< HEAD
"""What Unity Catalog and its volumes do otherwise than a laptop: its registry by MLflow's own client against a
server on loopback, files written front to back.
"""
=======
"""The registry by alias, in Unity Catalog: MLflow's own client against a server on loopback."""
>>>>>>> h-dataset2

import pytest
from unity_catalog import NAME, Catalog

<<<<<<< HEAD
from device import files
from lakevision.platform import config
from lakevision.registry import model_registry
from lakevision.release import promotions
from lakevision.training import checkpoint, horovod_ranks

NAME = "lab.porch.lakevision"


class Catalog:
    """A workspace's registry: versions {number: tags} of one model, aliases {alias: number}.

    It has no search by filter, as Unity Catalog has none.
    """

    def __init__(self, made=True):
        self.made, self.versions, self.aliases, self.logged = made, {"1": {}, "2": {}}, {}, []

    def answer(self, method, path, query, headers, body):
        if headers["Authorization"] != "Bearer dapi-good":
            return 403, b'{"error_code":"PERMISSION_DENIED","message":"bad token"}'
        asked = {
            **{key: values[0] if isinstance(values, list) else values for key, values in dict(query or {}).items()},
            **(json.loads(body) if body else {}),
        }
        if path == "/api/2.0/mlflow/runs/log-metric":
            self.logged.append((asked["run_id"], asked["key"], asked["step"], asked["value"]))
            return 200, b"{}"
        place = path.removeprefix("/api/2.0/mlflow/unity-catalog/")
        if not self.made:
            return 404, json.dumps(
                {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Registered Model '{NAME}' does not exist."}
            ).encode()
        if place == "registered-models/alias" and method == "GET":
            if asked["alias"] not in self.aliases:
                return 404, json.dumps(
                    {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Alias '{asked['alias']}' does not exist."}
                ).encode()
            return 200, self._version(self.aliases[asked["alias"]])
        if place == "registered-models/alias":
            self.aliases[asked["alias"]] = asked["version"]
            return 200, b"{}"
        if place == "registered-models/get":
            return 200, json.dumps({"registered_model": {"name": NAME}}).encode()
        if place == "model-versions/get":
            return 200, self._version(asked["version"])
        if place == "model-versions/set-tag":
            if len(asked["value"]) > 1000:
                return 400, b'{"error_code":"INVALID_PARAMETER_VALUE","message":"tag value longer than 1000"}'
            self.versions[asked["version"]][asked["key"]] = asked["value"]
            return 200, b"{}"
        return 500, json.dumps({"error_code": "INTERNAL_ERROR", "message": f"{method} {path} is not expected"}).encode()

    def _version(self, number):
        return json.dumps(
            {
                "model_version": {
                    "name": NAME,
                    "version": number,
                    "run_id": "r1",
                    "tags": [{"key": key, "value": value} for key, value in self.versions[number].items()],
                }
            }
        ).encode()


@pytest.fixture
def workspace_of(monkeypatch):
    """(Catalog) -> Config of a lakehouse whose registry it is."""
    import mlflow

    servers = []

    def start(catalog):
        server = Server(catalog.answer).__enter__()
        servers.append(server)
        monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.port}")
        monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        mlflow.set_tracking_uri("databricks")
        mlflow.set_registry_uri("databricks-uc")
        return config.load("local", ["storage.catalog=lab", "storage.schema=porch"])

    yield start
    for server in servers:
        server.__exit__(None, None, None)


def test_before_the_first_deployment_no_version_serves(workspace_of):
=======
from lakevision.registry import model_registry
from lakevision.release import promotions


def test_no_version_serves_before_the_first_deployment(workspace_of):
>>>>>>> h-dataset2
    assert model_registry.version_of(workspace_of(Catalog(made=False)), "champion") is None
    assert model_registry.version_of(workspace_of(Catalog()), "champion") is None


def test_alias_gives_the_serving_version(workspace_of):
    cfg = workspace_of(Catalog())
    model_registry.set_alias(cfg, "champion", "2")
    found = model_registry.version_of(cfg, "champion")
    assert (found.name, str(found.version), found.run_id) == (NAME, "2", "r1") and promotions.serving(cfg) == "2"
    assert model_registry.version_of(cfg, "challenger") is None


def test_refusing_or_wrong_registry_is_not_read_as_empty(workspace_of, monkeypatch):
    cfg = workspace_of(Catalog())
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-bad")
    with pytest.raises(Exception, match="bad token"):
        model_registry.version_of(cfg, "champion")

    class Elsewhere(Catalog):
        def answer(self, *words):
            return 404, b"<html>no such page</html>"

    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
    with pytest.raises(Exception, match="404"):
        model_registry.version_of(workspace_of(Elsewhere()), "champion")
<<<<<<< HEAD


def test_a_decision_moves_the_alias_and_its_tags_fit(workspace_of, lakehouse, monkeypatch):
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


def test_epochs_are_logged_by_the_driver_for_ranks_have_no_login(workspace_of, tmp_path, monkeypatch):
    catalog, jobs = Catalog(), []
    workspace_of(catalog)
    history = [{"loss": 0.5, "val_loss": 0.6}, {"loss": 0.25, "val_loss": 0.4}]

    def launched(job):
        jobs.append(job)
        return [("same", SimpleNamespace(history=history), 0.0), ("same", None, 0.0)]

    monkeypatch.setattr(horovod_ranks, "_launch", launched)
    monkeypatch.setattr(horovod_ranks.spark_session, "slots", lambda *_: 2)
    cache = SimpleNamespace(folder=str(tmp_path / "key" / "a"))
    horovod_ranks.train(
        None,
        config.load("local", ["training.ranks=2"]),
        SimpleNamespace(root=str(tmp_path)),
        cache,
        "setting",
        {"uri": "databricks", "run_id": "r1"},
    )
    assert jobs[0]["log"] is None
    assert catalog.logged == [("r1", key, step, history[step][key]) for step in (0, 1) for key in ("loss", "val_loss")]


def test_a_checkpoint_is_written_front_to_back(tmp_path, monkeypatch):
    """A volume takes no seek: neither by numpy's zip nor by anything else."""
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

    monkeypatch.setattr(files, "open", Forward, raising=False)
    checkpoint.save(tmp_path / "kept.npz", network, optimizer, {"history": [1], "best": None})
    assert len(opened) == 1
    assert checkpoint.restore(tmp_path / "kept.npz", network, optimizer)["history"] == [1]
    assert np.array_equal(back[0], network.get_weights()[0])
=======
>>>>>>> h-dataset2
