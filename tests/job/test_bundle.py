"""databricks.yml resolved for each target, without a workspace: order, names, permissions, schedules."""

import json

import pytest

from lakevision.job import bundle
from lakevision.platform import config, runtime, workspace
from lakevision.platform.workspace import REPOSITORY

NOTEBOOKS = ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]


@pytest.mark.parametrize(
    "name, notebooks", [("tour", NOTEBOOKS), ("retrain", NOTEBOOKS[1:4]), ("score", ["02_ingest", "05_score"])]
)
def test_each_job_runs_its_notebooks_in_order(name, notebooks):
    tasks = bundle.tasks(bundle.resolve(bundle.read(), "dev"), name)
    assert [task.name for task in tasks] == notebooks
    assert all(
        set(task.parameters) == set(workspace.parameters()) and task.parameters["config"] == "dev" for task in tasks
    )


def test_task_order_follows_depends_on_not_the_file(content):
    content["resources"]["jobs"]["tour"]["tasks"].reverse()
    assert [task.name for task in bundle.tasks(bundle.resolve(content, "dev"))] == NOTEBOOKS


def test_unknown_job_or_target_error_lists_the_known_ones():
    with pytest.raises(bundle.BundleError, match="there are retrain, score, tour"):
        bundle.tasks(bundle.resolve(bundle.read(), "dev"), "retrian")
    with pytest.raises(bundle.BundleError, match="there are dev, prod"):
        bundle.resolve(bundle.read(), "moon")


def test_no_reference_is_left_in_a_resolved_bundle(resolved):
    assert "${" not in json.dumps(resolved)


def test_development_names_start_with_the_persons_name():
    deployed = bundle.resolve(bundle.read(), "dev", {"catalog": "lab"}, user="ann.o'neil@example.com")
    resources = deployed["resources"]
    assert (
        resources["schemas"]["lakevision"]["name"]
        == resources["volumes"]["store"]["schema_name"]
        == "dev_ann_o_neil_lakevision"
    )
    assert resources["registered_models"]["classifier"]["name"] == "dev_ann_o_neil_lakevision"
    assert resources["experiments"]["training"]["name"] == "/Users/ann.o'neil@example.com/[dev ann_o_neil] lakevision"
    assert all(
        entry["name"].startswith("[dev ann_o_neil] ") and entry["tags"]["dev"] for entry in resources["jobs"].values()
    )
    place = bundle.tasks(deployed)[0].parameters["place"]
    cfg = config.load("dev", place)
    volumes = [f"/Volumes/lab/dev_ann_o_neil_lakevision/{name}" for name in ("store", "landing", "edge")]
    assert [cfg.storage.root, cfg.storage.landing, cfg.storage.edge] == volumes
    assert (
        cfg.storage.experiment.endswith("[dev ann_o_neil] lakevision")
        and cfg.deploy.model == cfg.storage.schema == "dev_ann_o_neil_lakevision"
    )


def test_production_grants_only_what_is_needed(variables):
    deployed = bundle.resolve(bundle.read(), "prod", variables["prod"])
    principal, resources = variables["prod"]["service_principal"], deployed["resources"]
    assert principal in deployed["workspace"]["root_path"]
    for entry in resources["jobs"].values():
        assert entry["run_as"] == {"service_principal_name": principal}
        assert {permission["level"] for permission in entry["permissions"]} == {"CAN_MANAGE", "CAN_VIEW"}
    granted = {
        (kind, name): {grant["principal"]: grant["privileges"] for grant in entry.get("grants", [])}
        for kind in ("schemas", "volumes", "registered_models")
        for name, entry in resources[kind].items()
    }
    assert {
        place: given["lakevision-devices"] for place, given in granted.items() if "lakevision-devices" in given
    } == {
        ("schemas", "lakevision"): ["USE_SCHEMA"],
        ("volumes", "landing"): ["READ_VOLUME", "WRITE_VOLUME"],
        ("volumes", "edge"): ["READ_VOLUME"],
        ("registered_models", "classifier"): ["EXECUTE"],
    }
    assert [place for place, given in granted.items() if "lakevision-readers" in given] == [("schemas", "lakevision")]


def test_scheduled_jobs_retry_time_out_queue_and_never_overlap(resolved):
    jobs = resolved["resources"]["jobs"]
    for name in ("retrain", "score"):
        entry = jobs[name]
        assert (
            entry["schedule"]["pause_status"] == "PAUSED"
            and entry["email_notifications"]["on_failure"]
            and entry["health"]["rules"]
        )
        assert all(task["max_retries"] and task["min_retry_interval_millis"] for task in entry["tasks"])
        assert all(task["timeout_seconds"] < entry["timeout_seconds"] for task in entry["tasks"])
    for entry in jobs.values():
        assert (
            entry["max_concurrent_runs"] == 1
            and entry["queue"] == {"enabled": True}
            and entry["tags"]["project"] == "lakevision"
        )
        assert entry["job_clusters"] == jobs["tour"]["job_clusters"]
    cluster = jobs["tour"]["job_clusters"][0]["new_cluster"]
    runtime.demand(
        runtime.Runtime("3.11.0", databricks="15.4", image=cluster["spark_version"], mode=cluster["data_security_mode"])
    )
    assert "schedule" not in jobs["tour"]


def test_cluster_pins_equal_those_of_requirements_txt():
    pinned, everything = ((REPOSITORY / name).read_text() for name in ("config/cluster.txt", "requirements.txt"))
    lines = [line.strip() for line in pinned.splitlines() if line.strip() and not line.startswith("#")]
    theirs = {line.split("#")[0].strip() for line in everything.splitlines()}
    assert lines and set(lines) <= theirs, set(lines) - theirs
    assert {"mlflow", "pillow", "obstore", "ai-edge-litert", "uvloop", "httptools"} <= set(runtime.pins(pinned))


def test_targets_task_settings_change_only_that_task(content):
    own = {"tasks": [{"task_key": "train", "timeout_seconds": 60}], "tags": {"team": "porch"}}
    content["targets"]["dev"]["resources"] = {"jobs": {"retrain": own}}
    jobs = bundle.resolve(content, "dev")["resources"]["jobs"]
    assert [task["task_key"] for task in jobs["retrain"]["tasks"]] == ["ingest", "train", "deploy"]
    train = jobs["retrain"]["tasks"][1]
    assert (train["timeout_seconds"], train["job_cluster_key"], jobs["tour"]["tasks"][2].get("timeout_seconds")) == (
        60,
        "ml",
        None,
    )
    assert jobs["retrain"]["tags"] == {"project": "lakevision", "target": "dev", "team": "porch", "dev": "you"}


def test_error_names_all_missing_variables_at_once():
    with pytest.raises(bundle.BundleError) as caught:
        bundle.resolve(bundle.read(), "prod")
    assert "${var.service_principal}" in str(caught.value) and "${var.notify}" in str(caught.value)
