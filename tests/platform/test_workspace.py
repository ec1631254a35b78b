"""What a notebook is given, here and by Databricks' widgets; what it runs on; secrets."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lakevision.platform import config, runtime, workspace
from lakevision.platform.workspace import REPOSITORY

PLACE = "storage.root=/Volumes/main/dev_ann_lakevision/store storage.schema=dev_ann_lakevision 'storage.experiment=/Users/ann/[dev ann] lakevision'"
ML = {"databricks": "15.4", "image": "15.4.x-cpu-ml-scala2.12", "mode": "SINGLE_USER"}


class Widgets:
    """Databricks' dbutils.widgets, as far as a notebook sees it: a job's value outranks the default that text() names."""

    def __init__(self, **filled):
        self.filled, self.made = filled, {}

    def text(self, name, default):
        self.made[name] = default

    def get(self, name):
        return self.filled.get(name, self.made[name])


class Scopes:
    def get(self, scope, key):
        return {("lakevision", "client-secret"): "s3cr3t"}[scope, key]


class Dbutils:
    def __init__(self, **filled):
        self.widgets, self.secrets = Widgets(**filled), Scopes()


@pytest.fixture
def databricks(monkeypatch):
    """Makes workspace believe that it is on Databricks, with a job's values in the widgets: databricks(config="dev") -> dbutils."""

    def fill(**filled):
        dbutils = Dbutils(**filled)
        monkeypatch.setattr(workspace, "ON_DATABRICKS", True)
        monkeypatch.setattr(workspace, "_given", {})
        monkeypatch.setattr(workspace, "_notebook_global", {"dbutils": dbutils}.__getitem__)
        return dbutils

    return fill


@pytest.fixture
def given(monkeypatch):
    """set_parameters, forgotten after the test."""
    monkeypatch.setattr(workspace, "_given", {})
    return workspace.set_parameters


def test_each_widget_has_its_default_in_the_config():
    assert workspace.parameters() == {"config": "local", "place": "", "set": "", "commit": ""}
    assert {f"notebook.{name}": value for name, value in workspace.parameters().items()} == {
        name: value for name, value in config.load("local").flat().items() if name.startswith("notebook.")
    }


def test_a_jobs_values_reach_the_config_and_are_kept_in_it(databricks):
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


def test_set_outranks_place(databricks):
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
def test_a_wrong_widget_is_named(databricks, filled, message):
    databricks(**filled)
    with pytest.raises(config.ConfigError) as caught:
        workspace.configuration()
    assert message in str(caught.value)


def test_the_runners_values_come_the_same_way(given):
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


def test_outside_a_checkout_the_commit_is_the_bundles(given, monkeypatch, tmp_path):
    assert workspace.commit()[:40].isalnum()
    monkeypatch.setattr(workspace, "REPOSITORY", tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    assert workspace.commit() == "unknown"
    given(commit="abc123")
    assert workspace.commit() == "abc123"


def test_devices_may_have_places_of_their_own(tmp_path):
    plain = workspace.places(config.load("local", [f"storage.root={tmp_path / 'store'}"]))
    assert (plain.landing, plain.edge) == (str(tmp_path / "store" / "landing"), str(tmp_path / "store" / "edge"))
    for name in ("landing", "edge"):
        apart = workspace.places(
            config.load("local", [f"storage.root={tmp_path / 'store'}", f"storage.{name}={tmp_path / name}"])
        )
        assert apart == replace(plain, **{name: str(tmp_path / name)})


# ---- secrets


def test_a_secret_is_revealed_on_databricks_only(databricks):
    with pytest.raises(LookupError, match="Databricks scope, and this is another machine"):
        workspace.revealed("{{secrets/lakevision/client-secret}}")
    assert workspace.revealed("no secret") == "no secret"
    databricks()
    assert workspace.revealed("a {{secrets/lakevision/client-secret}} b") == "a s3cr3t b"
    with pytest.raises(KeyError):
        workspace.revealed("{{secrets/lakevision/other}}")


# ---- what it runs on


def test_here_all_is_as_pinned_and_said(capsys):
    workspace.check_versions()
    said = capsys.readouterr().out
    assert said.startswith("Python 3.11.") and ", Java " in said and said.strip().endswith("versions as pinned")


def test_every_notebook_looks_first_and_imports_nothing_before(tmp_path):
    for path in sorted((REPOSITORY / "notebooks").glob("[0-9]*.py")):
        cells = path.read_text().split("# COMMAND ----------")
        assert cells[1].strip() == "from lakevision.platform import workspace\n\nworkspace.check_versions()", path.name
    script = f"import sys; sys.path.insert(0, {str(REPOSITORY / 'notebooks')!r}); from lakevision.platform import workspace; print(sorted(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
    loaded = set(done.stdout.replace("'", "").strip("[]\n").split(", "))
    assert (
        "lakevision.platform.workspace" in loaded
        and not {"tensorflow", "horovod", "hyperopt", "petastorm", "pyspark"} & loaded
    ), done.stderr


@pytest.mark.parametrize(
    "found, message",
    [
        pytest.param(
            {**ML, "databricks": "16.4", "image": "16.4.x-cpu-ml-scala2.12"},
            "has no Horovod any more (15.4 LTS ML is the last",
            id="too new",
        ),
        pytest.param(
            {**ML, "databricks": "14.3", "image": "14.3.x-cpu-ml-scala2.12"},
            "is older than these versions",
            id="too old",
        ),
        pytest.param({**ML, "image": "15.4.x-scala2.12"}, "15.4.x-scala2.12 is no ML runtime", id="no ML runtime"),
        pytest.param({**ML, "mode": "USER_ISOLATION"}, "access mode USER_ISOLATION is not dedicated", id="shared"),
        pytest.param(
            {**ML, "databricks": "client.2.5", "image": "", "mode": ""},
            "serverless compute, which has no Horovod",
            id="serverless",
        ),
        pytest.param(
            {"python": "3.12.4", "java": 17}, "Python is 3.12.4, and the pinned versions need 3.11", id="Python here"
        ),
        pytest.param({"java": 21}, "'java' here is 21", id="Java here"),
        pytest.param({"java": 0}, "'java' here is missing", id="no Java"),
    ],
)
def test_what_it_can_not_run_on_is_said_with_what_to_take(found, message):
    with pytest.raises(runtime.Unfit) as caught:
        runtime.demand(runtime.Runtime(**{"python": "3.11.0", **found}))
    assert message in str(caught.value) and (
        "15.4 LTS ML" in str(caught.value) or "config/setup.sh" in str(caught.value)
    )


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(ML, id="the bundle's cluster"),
        pytest.param(
            {**ML, "image": "15.4.x-gpu-ml-scala2.12", "mode": "DATA_SECURITY_MODE_DEDICATED"}, id="with GPUs"
        ),
        pytest.param({"databricks": "15.4"}, id="a cluster that tells nothing"),
        pytest.param({"java": 11}, id="Java 11"),
    ],
)
def test_what_it_can_run_on(found):
    runtime.demand(runtime.Runtime(**{"python": "3.11.0", **found}))


def test_on_databricks_the_cluster_is_asked(spark, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    tags = "spark.databricks.clusterUsageTags"
    keys = {f"{tags}.sparkVersion": ML["image"], f"{tags}.dataSecurityMode": ML["mode"]}
    assert runtime.here(True).in_words().startswith("Databricks Runtime 15.4, access mode not told")
    for key, value in keys.items():
        spark.conf.set(key, value)
    try:
        assert runtime.here(True) == runtime.Runtime(".".join(map(str, sys.version_info[:3])), **ML)
    finally:
        for key in keys:
            spark.conf.unset(key)


def test_a_differing_version_is_named():
    text = (REPOSITORY / "requirements.txt").read_text()
    assert runtime.differences(text, False) == []
    assert runtime.differences(
        text.replace("keras==3.3.3", "keras==3.4.0  # newer").replace("pyspark==3.5.0", "pyspark==3.5.1"), True
    ) == ["keras 3.3.3 (pinned: 3.4.0)"]
    assert runtime.pins("moto[server]==5.1.4\npicamera==1.13; platform_machine == 'armv7l'\n# x==1\ny<2") == {
        "moto": "5.1.4",
        "picamera": "1.13",
    }


def test_java_is_found_or_missed(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.here(False).java == 0
    (tmp_path / "java").write_text("#!/bin/sh\necho 'java version \"1.8.0_301\"' >&2\n")
    os.chmod(tmp_path / "java", 0o755)
    assert runtime.here(False).java == 8
