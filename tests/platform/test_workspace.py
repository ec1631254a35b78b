"""Parameters of a notebook, here and in Databricks' widgets; folders and tables; secrets; display; the first cell."""

import subprocess
import sys
from dataclasses import replace

import pytest

from lakevision.platform import config, workspace
from lakevision.platform.workspace import REPOSITORY

PLACE = (
    "storage.root=/Volumes/main/dev_ann_lakevision/store storage.schema=dev_ann_lakevision "
    "'storage.experiment=/Users/ann/[dev ann] lakevision'"
)


def test_widget_defaults_are_the_section_notebook():
    assert workspace.parameters() == {"config": "local", "place": "", "set": "", "commit": ""}
    assert {f"notebook.{name}": value for name, value in workspace.parameters().items()} == {
        name: value for name, value in config.load("local").flat().items() if name.startswith("notebook.")
    }


def test_job_parameters_reach_the_config_and_stay_in_it(databricks):
    dbutils = databricks(
        config="dev",
        place=PLACE,
        set="training.epochs=3 'deploy.promote_anyway=ann, a \"demonstration\"'",
        commit="abc123",
    )
    cfg = workspace.configuration()
    assert (cfg.storage.schema, cfg.storage.experiment, cfg.training.epochs) == (
        "dev_ann_lakevision",
        "/Users/ann/[dev ann] lakevision",
        3,
    )
    assert cfg.deploy.promote_anyway == 'ann, a "demonstration"' and cfg.storage.mlflow_uri == "databricks"
    assert dbutils.widgets.made == workspace.parameters()
    flat = cfg.flat()
    assert (flat["notebook.config"], flat["notebook.place"], flat["notebook.commit"]) == ("dev", PLACE, "abc123")
    assert "training.epochs=3" in workspace.given()


def test_parameter_set_outranks_place(databricks):
    databricks(config="dev", place=PLACE, set="storage.schema=mine")
    assert workspace.configuration().storage.schema == "mine"


@pytest.mark.parametrize(
    "filled, message",
    [
        pytest.param(
            {"config": "devel", "place": PLACE},
            "config/devel.yml does not exist; there are dev, local, prod",
            id="overlay",
        ),
        pytest.param(
            {"config": "dev", "place": PLACE, "set": "training.epoch=3"},
            "widget set: 'epoch' is not a setting of training; did you mean",
            id="setting",
        ),
        pytest.param(
            {"config": "dev", "place": PLACE, "set": "training.epochs=many"},
            "widget set: training.epochs must be int",
            id="type",
        ),
        pytest.param(
            {"config": "dev", "place": PLACE, "set": "epochs"},
            "widget set 'epochs': expected section.setting=value",
            id="no setting",
        ),
        pytest.param(
            {"config": "dev", "place": "storage.rot=/Volumes/a/b/c"},
            "widget place: 'rot' is not a setting of storage",
            id="place",
        ),
        pytest.param(
            {"config": "dev", "place": "storage.root='/Volumes"}, "No closing quotation", id="quote left open"
        ),
        pytest.param(
            {"config": "dev"},
            "on Databricks it must be a volume: run the notebook by the bundle's job",
            id="opened by hand",
        ),
    ],
)
def test_wrong_widget_is_named(databricks, filled, message):
    databricks(**filled)
    with pytest.raises(config.ConfigError) as caught:
        workspace.configuration()
    assert message in str(caught.value)


def test_runner_parameters_reach_the_config(given):
    given(config="dev", place="storage.root=/tmp/somewhere", set="training.epochs=3")
    cfg = workspace.configuration()
    assert (cfg.notebook.config, cfg.training.epochs, cfg.capture.source, cfg.storage.root) == (
        "dev",
        3,
        "landing",
        "/tmp/somewhere",
    )
    with pytest.raises(KeyError, match="notebooks take config, place, set, commit, not sett"):
        given(sett="training.epochs=3")


def test_commit_outside_a_checkout_is_the_parameter(given, monkeypatch, tmp_path):
    assert workspace.commit()[:40].isalnum()
    monkeypatch.setattr(workspace, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert workspace.commit() == "unknown"
    given(commit="abc123")
    assert workspace.commit() == "abc123"


def test_landing_and_edge_may_be_folders_of_their_own(tmp_path):
    plain = workspace.places(config.load("local", [f"storage.root={tmp_path / 'store'}"]))
    assert (plain.landing, plain.edge) == (str(tmp_path / "store" / "landing"), str(tmp_path / "store" / "edge"))
    for name in ("landing", "edge"):
        apart = workspace.places(
            config.load("local", [f"storage.root={tmp_path / 'store'}", f"storage.{name}={tmp_path / name}"])
        )
        assert apart == replace(plain, **{name: str(tmp_path / name)})


def test_secret_is_revealed_on_databricks_only(databricks):
    with pytest.raises(
        LookupError, match="secret of a Databricks scope, which only Databricks can read; this is another"
    ):
        workspace.revealed("{{secrets/lakevision/client-secret}}")
    assert workspace.revealed("no secret") == "no secret"
    databricks()
    assert workspace.revealed("a {{secrets/lakevision/client-secret}} b") == "a s3cr3t b"
    with pytest.raises(KeyError):
        workspace.revealed("{{secrets/lakevision/other}}")


def test_check_versions_prints_that_all_are_as_pinned(capsys):
    workspace.check_versions()
    line = capsys.readouterr().out
    assert line.startswith("Python 3.11.") and ", Java " in line and line.strip().endswith("versions as pinned")


def test_notebooks_check_versions_before_heavy_imports(tmp_path):
    for path in sorted((REPOSITORY / "notebooks").glob("[0-9]*.py")):
        cells = path.read_text().split("# COMMAND ----------")
        assert cells[1].strip() == "from lakevision.platform import workspace\n\nworkspace.check_versions()", path.name
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'notebooks')!r}); "
        "from lakevision.platform import workspace; print(sorted(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    loaded = set(done.stdout.replace("'", "").strip("[]\n").split(", "))
    heavy = {"tensorflow", "horovod", "hyperopt", "petastorm", "pyspark", "pydantic"}
    assert "lakevision.platform.workspace" in loaded and not heavy & loaded, done.stderr


@pytest.mark.parametrize(
    "master, expected",
    [("local[2]", True), ("local-cluster[2,1,1024]", True), ("spark://host:7077", False), ("yarn", False)],
)
def test_local_masters_run_on_one_machine(master, expected, databricks):
    cfg = config.load("local", [f"spark.master={master}"])
    assert workspace.on_one_machine(cfg) == expected
    databricks()
    assert not workspace.on_one_machine(cfg)


def test_databricks_is_recognised_by_its_variable(monkeypatch):
    def answers():
        return workspace.on_databricks(), workspace.has_autoloader(), workspace.has_serving_endpoints()

    monkeypatch.delenv("DATABRICKS_RUNTIME_VERSION", raising=False)
    assert answers() == (False, False, False)
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    assert answers() == (True, True, True)


def test_free_bytes_are_unknown_on_databricks(tmp_path, databricks):
    free = workspace.free_bytes(tmp_path)
    assert free is not None and free > 0
    databricks()
    assert workspace.free_bytes(tmp_path) is None


def test_user_is_the_account_here_and_spark_user_there(databricks, monkeypatch):
    class Spark:
        def sql(self, query):
            assert query == "SELECT current_user()"
            return type("Rows", (), {"first": lambda self: ("ann@example.com",)})()

    monkeypatch.setattr(workspace.getpass, "getuser", lambda: "ann")
    assert workspace.user(Spark()) == "ann"
    databricks()
    assert workspace.user(Spark()) == "ann@example.com"


def test_places_create_folders_and_quote_tables(tmp_path, databricks):
    cfg = config.load("local", [f"storage.root={tmp_path}", "storage.schema=mine"])
    places = workspace.places(cfg)
    assert all((tmp_path / name).is_dir() for name in ("landing", "checkpoints", "cache", "models", "edge", "figures"))
    assert places.table("images") == "`mine`.`images`" and places.warehouse == str(tmp_path / "warehouse")
    assert places.mlflow_uri == places.registry_uri == f"sqlite:///{tmp_path / 'mlflow.db'}"
    databricks()
    cataloged = workspace.places(replace(cfg, storage=replace(cfg.storage, catalog="main")))
    assert cataloged.table("images") == "`main`.`mine`.`images`"
    assert (cataloged.warehouse, cataloged.mlflow_uri) == ("", "databricks")


def test_relative_root_lies_in_the_repository():
    assert workspace.places(config.load("local")).root == str(REPOSITORY / ".local" / "lakehouse")


def test_report_is_read_back_and_a_missing_stage_named(tmp_path):
    places = workspace.places(config.load("local", [f"storage.root={tmp_path}"]))
    workspace.report(places, "train", {"accuracy": 0.9})
    workspace.report(places, "train", {"accuracy": 0.95, "classes": ["a", "b"]})
    assert workspace.reported(places, "train") == {"accuracy": 0.95, "classes": ["a", "b"]}
    assert [path.name for path in (tmp_path / "figures").iterdir()] == ["train.json"]
    with pytest.raises(FileNotFoundError, match="run the notebook of stage 'deploy' first"):
        workspace.reported(places, "deploy")


def test_small_batches_restore_settings_after_an_error():
    values = {"spark.sql.execution.arrow.maxRecordsPerBatch": "10000", "spark.sql.other": "a"}
    conf = type("Conf", (), {"get": lambda self, key: values[key], "set": lambda self, *pair: values.update([pair])})()
    before = dict(values)
    with (
        pytest.raises(ZeroDivisionError),
        workspace.small_batches(type("Session", (), {"conf": conf}), **{"spark.sql.other": "b"}),
    ):
        assert values == {"spark.sql.execution.arrow.maxRecordsPerBatch": "32", "spark.sql.other": "b"}
        raise ZeroDivisionError
    assert values == before


def test_display_shows_tables_and_figures_as_images(monkeypatch, databricks):
    import IPython.display
    import pandas as pd
    from matplotlib.figure import Figure

    shown = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    table = pd.DataFrame({"a": [1]})
    workspace.display(table)
    workspace.display(type("SparkTable", (), {"toPandas": lambda self: table})())
    workspace.display(Figure())
    assert shown[0] is table and shown[1] is table and shown[2].data.startswith(b"\x89PNG")
    databricks()
    monkeypatch.setattr(workspace, "_notebook_global", {"display": shown.append}.__getitem__)
    workspace.display("there")
    assert shown[3] == "there"


def test_now_is_in_utc():
    from datetime import UTC, datetime

    shown = datetime.strptime(workspace.now(), "%d %B %Y, %H:%M UTC").replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - shown).total_seconds()) < 120


def test_given_is_the_words_of_place_and_set(given):
    given(place="storage.root=/tmp/a", set="training.epochs=3 'capture.path=/a b'")
    assert workspace.given() == ["storage.root=/tmp/a", "training.epochs=3", "capture.path=/a b"]
