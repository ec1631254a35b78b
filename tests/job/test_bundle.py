"""databricks.yml, without a workspace: each target resolved, loaded with Databricks' own types, looked through for faults, and run here.

databricks-bundles 0.275 has types for jobs, schemas and volumes (and pipelines, of which there are none). It has none for registered models and
experiments: of those bundle_check knows the fields and which are needed, not their types.
"""

import copy
import json
import re
import shutil

import pytest
from databricks.bundles.jobs import Job
from databricks.bundles.schemas import Schema
from databricks.bundles.volumes import Volume

from lakevision.job import bundle, bundle_check, quartz
from lakevision.platform import config, runtime, workspace
from lakevision.platform.workspace import REPOSITORY

TYPES = {"jobs": Job, "schemas": Schema, "volumes": Volume}
GIVEN = {"dev": {}, "prod": {"service_principal": "0f5c6c5e-1111-2222-3333-444455556666", "notify": "ops@example.com"}}
NOTEBOOKS = ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]


@pytest.fixture
def content():
    return copy.deepcopy(bundle.read())


@pytest.fixture(params=["dev", "prod"])
def resolved(request):
    return bundle.resolve(bundle.read(), request.param, GIVEN[request.param])


def job(content, name="retrain"):
    return content["resources"]["jobs"][name]


def task(content, key, name="retrain"):
    return next(entry for entry in job(content, name)["tasks"] if entry["task_key"] == key)


# ---- what is there


@pytest.mark.parametrize(
    "name, notebooks", [("tour", NOTEBOOKS), ("retrain", NOTEBOOKS[1:4]), ("score", ["02_ingest", "05_score"])]
)
def test_each_job_runs_its_notebooks_in_order(name, notebooks):
    tasks = bundle.tasks(bundle.resolve(bundle.read(), "dev"), name)
    assert [task.name for task in tasks] == notebooks
    assert all(
        set(task.parameters) == set(workspace.parameters()) and task.parameters["config"] == "dev" for task in tasks
    )


def test_order_follows_depends_on_not_the_file(content):
    job(content, "tour")["tasks"].reverse()
    assert [task.name for task in bundle.tasks(bundle.resolve(content, "dev"))] == NOTEBOOKS


def test_an_unknown_job_or_target_names_those_there_are():
    with pytest.raises(bundle.BundleError, match="there are retrain, score, tour"):
        bundle.tasks(bundle.resolve(bundle.read(), "dev"), "retrian")
    with pytest.raises(bundle.BundleError, match="there are dev, prod"):
        bundle.resolve(bundle.read(), "moon")


def test_databricks_own_types_take_every_resource(resolved):
    assert set(resolved["resources"]) == set(TYPES) | set(bundle_check.FIELDS)
    for kind, cls in TYPES.items():
        for resource in resolved["resources"][kind].values():
            cls.from_dict(resource)
    assert "${" not in json.dumps(resolved)


def test_in_development_all_that_could_collide_has_the_persons_name_in_front():
    found = bundle.resolve(bundle.read(), "dev", {"catalog": "lab"}, user="ann.o'neil@example.com")
    resources = found["resources"]
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
    place = bundle.tasks(found)[0].parameters["place"]
    cfg = config.load("dev", place)
    volumes = [f"/Volumes/lab/dev_ann_o_neil_lakevision/{name}" for name in ("store", "landing", "edge")]
    assert [cfg.storage.root, cfg.storage.landing, cfg.storage.edge] == volumes
    assert (
        cfg.storage.experiment.endswith("[dev ann_o_neil] lakevision")
        and cfg.deploy.model == cfg.storage.schema == "dev_ann_o_neil_lakevision"
    )


def test_production_runs_as_the_service_principal_and_grants_no_more_than_is_needed():
    found = bundle.resolve(bundle.read(), "prod", GIVEN["prod"])
    principal, resources = GIVEN["prod"]["service_principal"], found["resources"]
    assert principal in found["workspace"]["root_path"]
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


def test_scheduled_jobs_retry_end_warn_queue_and_never_overlap(resolved):
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


def test_the_clusters_pins_are_those_of_requirements_txt():
    pinned, everything = ((REPOSITORY / name).read_text() for name in ("config/cluster.txt", "requirements.txt"))
    lines = [line.strip() for line in pinned.splitlines() if line.strip() and not line.startswith("#")]
    theirs = {line.split("#")[0].strip() for line in everything.splitlines()}
    assert lines and set(lines) <= theirs, set(lines) - theirs
    assert {"mlflow", "pillow", "obstore", "ai-edge-litert", "uvloop", "httptools"} <= set(runtime.pins(pinned))


def test_what_a_target_says_of_a_task_is_laid_over_that_task_alone(content):
    own = {"tasks": [{"task_key": "train", "timeout_seconds": 60}], "tags": {"team": "porch"}}
    content["targets"]["dev"]["resources"] = {"jobs": {"retrain": own}}
    found = bundle.resolve(content, "dev")["resources"]["jobs"]
    assert [task["task_key"] for task in found["retrain"]["tasks"]] == ["ingest", "train", "deploy"]
    train = found["retrain"]["tasks"][1]
    assert (train["timeout_seconds"], train["job_cluster_key"], found["tour"]["tasks"][2].get("timeout_seconds")) == (
        60,
        "ml",
        None,
    )
    assert found["retrain"]["tags"] == {"project": "lakevision", "target": "dev", "team": "porch", "dev": "you"}


# ---- what is wrong in it


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_no_fault_is_found_in_ours(target):
    assert bundle_check.check(bundle.read(), target, GIVEN[target]) == []


def _cycle(c):
    task(c, "ingest")["depends_on"] = [{"task_key": "deploy"}]


PLANTED = [
    pytest.param(_cycle, "tasks: deploy, ingest, train wait for each other", id="cycle"),
    pytest.param(
        lambda c: task(c, "train").update(depends_on=[{"task_key": "inges"}]),
        "'inges' is no task of this job; did you mean 'ingest'",
        id="dangling task",
    ),
    pytest.param(
        lambda c: task(c, "train").update(task_key="ingest"), "two tasks have the same task_key", id="task twice"
    ),
    pytest.param(
        lambda c: task(c, "train").update(job_cluster_key="mll"),
        "'mll' is none of job_clusters; did you mean 'ml'",
        id="dangling cluster",
    ),
    pytest.param(lambda c: task(c, "train").pop("job_cluster_key"), "serverless compute", id="no cluster"),
    pytest.param(
        lambda c: task(c, "train").update(libraries=[{"requirements": "config/clusters.txt"}]),
        "config/clusters.txt does not exist",
        id="no pins",
    ),
    pytest.param(
        lambda c: task(c, "train")["notebook_task"].update(notebook_path="notebooks/99.py"),
        "'notebooks/99.py' does not exist",
        id="no notebook",
    ),
    pytest.param(
        lambda c: task(c, "train")["notebook_task"].update(base_parameters={"set": "x.y=1"}),
        "allows none in its tasks",
        id="both kinds of parameters",
    ),
    pytest.param(
        lambda c: job(c)["parameters"].append({"name": "sett", "default": ""}),
        "no widget 'sett', and would ignore the parameter; did you mean 'set'",
        id="parameter without widget",
    ),
    pytest.param(
        lambda c: job(c)["parameters"].pop(1),
        "has a widget 'place' that no parameter fills",
        id="widget without parameter",
    ),
    pytest.param(
        lambda c: job(c)["parameters"].append({"name": "set", "default": ""}),
        "'set' is there twice",
        id="parameter twice",
    ),
    pytest.param(lambda c: job(c)["parameters"][2].update(default=3), "default: 3 is no text", id="number for text"),
    pytest.param(
        lambda c: job(c)["parameters"][2].update(default="training.epoch=3"),
        "parameters[set]: 'epoch' is not a setting of training; did you mean 'epochs'",
        id="unknown setting in set",
    ),
    pytest.param(
        lambda c: job(c)["parameters"][1].update(default="storage.rot=/Volumes/a/b/c"),
        "parameters[place]: 'rot' is not a setting",
        id="unknown in place",
    ),
    pytest.param(
        lambda c: job(c)["parameters"][0].update(default="moon"), "config/moon.yml does not exist", id="no such overlay"
    ),
    pytest.param(
        lambda c: job(c)["parameters"][1].update(
            default=job(c)["parameters"][1]["default"].replace("${resources.schemas.lakevision.name}", "lakevision")
        ),
        "storage.schema is 'lakevision', which this target does not make (it makes dev_you_lakevision)",
        id="fixed schema",
    ),
    pytest.param(
        lambda c: c["resources"]["volumes"]["store"].update(schema_name="lakevision"),
        "'lakevision' is no schema of this target",
        id="volume elsewhere",
    ),
    pytest.param(
        lambda c: c["resources"]["volumes"]["store"].update(schema_name="${resources.schemas.lakevison.name}"),
        "${resources.schemas.lakevison.name} refers to nothing",
        id="dangling resource",
    ),
    pytest.param(
        lambda c: task(c, "train").update(description="${var.nothing}"),
        "${var.nothing} refers to nothing: it has no default",
        id="dangling variable",
    ),
    pytest.param(
        lambda c: c["variables"]["timezone"].pop("default"),
        "${var.timezone} refers to nothing",
        id="variable without value",
    ),
    pytest.param(
        lambda c: c["variables"]["set"].update(default="${var.set}"),
        "${var.set} refers to itself",
        id="circular variable",
    ),
    pytest.param(
        lambda c: c["variables"]["set"].pop("description"), "variables.set: no description", id="no description"
    ),
    pytest.param(
        lambda c: c["variables"].update(spare={"description": "x", "default": 1}),
        "variables.spare: nothing refers to it",
        id="variable for nothing",
    ),
    pytest.param(
        lambda c: c["targets"]["dev"]["variables"].update(notfy="x"),
        "variables.notfy is not declared",
        id="target's variable unknown",
    ),
    pytest.param(
        lambda c: c.update(resource={}),
        "resource: no section of a bundle; did you mean 'resources'",
        id="unknown section",
    ),
    pytest.param(
        lambda c: c["resources"].update(volume={}),
        "resources.volume: unknown here; did you mean 'volumes'",
        id="unknown kind",
    ),
    pytest.param(
        lambda c: c["resources"]["registered_models"]["classifier"].update(coment="x"),
        "coment: no such field; did you mean 'comment'",
        id="model's field",
    ),
    pytest.param(
        lambda c: c["resources"]["registered_models"]["classifier"].pop("schema_name"),
        "schema_name is missing",
        id="model without schema",
    ),
    pytest.param(
        lambda c: c["resources"]["experiments"]["training"].update(name="lakevision"),
        "must be a path in the workspace",
        id="experiment without path",
    ),
    pytest.param(
        lambda c: job(c)["schedule"].update(quartz_cron_expression="0 3 * * 0"), "five are Unix cron", id="Unix cron"
    ),
    pytest.param(
        lambda c: job(c)["schedule"].pop("timezone_id"),
        "timezone_id: None is no time zone",
        id="schedule without time zone",
    ),
    pytest.param(
        lambda c: job(c)["schedule"].update(timezone_id="Europe/Berln"),
        "did you mean 'Europe/Berlin'",
        id="time zone misspelt",
    ),
    pytest.param(
        lambda c: job(c)["email_notifications"].update(on_failure=[""]),
        "on_failure: '' is no e-mail address",
        id="nobody to tell",
    ),
    pytest.param(lambda c: job(c).pop("health"), "never sent without a health rule", id="warning that is never sent"),
    pytest.param(
        lambda c: c["targets"]["dev"].update(mode="develop"), "'develop'; did you mean 'development'", id="unknown mode"
    ),
    pytest.param(
        lambda c: c["targets"]["dev"].update(workspace={"root_path": "/Workspace/Shared/x"}),
        "not below the user's own folder",
        id="shared root in dev",
    ),
]


@pytest.mark.parametrize("plant, message", PLANTED)
def test_a_planted_fault_is_found(content, plant, message):
    plant(content)
    faults = bundle_check.check(content, "dev")
    assert any(message in fault for fault in faults), faults


@pytest.mark.parametrize(
    "plant, given, message",
    [
        pytest.param(lambda t: t.pop("workspace"), GIVEN["prod"], "production mode requires it", id="no root path"),
        pytest.param(lambda t: t.pop("run_as"), GIVEN["prod"], "names 0 identities", id="no run_as"),
        pytest.param(
            lambda t: None,
            {**GIVEN["prod"], "service_principal": ""},
            "names 0 identities",
            id="empty service principal",
        ),
        pytest.param(
            lambda t: None,
            {"notify": "ops@example.com"},
            "${var.service_principal} refers to nothing",
            id="no service principal",
        ),
        pytest.param(
            lambda t: None,
            {**GIVEN["prod"], "service_principle": "x"},
            "variable service_principle is given, and not declared",
            id="--var misspelt",
        ),
        pytest.param(lambda t: None, {**GIVEN["prod"], "notify": "ops"}, "'ops' is no e-mail address", id="no address"),
        pytest.param(
            lambda t: None, {**GIVEN["prod"], "retrain_schedule": "0 0 3 * * SUN"}, "must be ?", id="schedule by --var"
        ),
        pytest.param(
            lambda t: None,
            {**GIVEN["prod"], "set": "tuning.trials=none"},
            "tuning.trials must be int",
            id="wrong value in set",
        ),
    ],
)
def test_a_fault_of_production_is_found(content, plant, given, message):
    plant(content["targets"]["prod"])
    faults = bundle_check.check(content, "prod", given)
    assert any(message in fault for fault in faults), faults


def test_the_check_is_a_command(capsys):
    assert bundle_check.main(["dev"]) == 0 and "target dev: no fault found" in capsys.readouterr().out
    assert (
        bundle_check.main(["prod", "notify=ops@example.com"]) == 1
        and "${var.service_principal} refers to nothing" in capsys.readouterr().out
    )


def test_what_can_not_be_filled_in_is_all_named_at_once():
    with pytest.raises(bundle.BundleError) as caught:
        bundle.resolve(bundle.read(), "prod")
    assert "${var.service_principal}" in str(caught.value) and "${var.notify}" in str(caught.value)


def test_widgets_are_found_in_whatever_way_a_notebook_reads_them(tmp_path):
    path = tmp_path / "10_test.py"
    path.write_text(
        'a = workspace.parameter("set")\nb = dbutils.widgets.get("day")\ndbutils.widgets.text("label", "")\n'
    )
    assert bundle_check.widgets(path) == {"set", "day", "label"}
    assert bundle_check.widgets(REPOSITORY / "notebooks/03_train.py") == set(workspace.parameters())


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(lambda r: r["jobs"]["retrain"].update(max_concurrent_run=1), id="unknown field of a job"),
        pytest.param(lambda r: r["jobs"]["retrain"]["tasks"][0].update(max_retry=1), id="unknown field of a task"),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["health"]["rules"][0].update(metric="RUN_DURATION"),
            id="bad enum of a health rule",
        ),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["job_clusters"][0]["new_cluster"].update(data_security_mode="DEDICATED"),
            id="bad access mode",
        ),
        pytest.param(lambda r: r["jobs"]["retrain"]["schedule"].update(pause_status="ON"), id="bad pause status"),
        pytest.param(
            lambda r: r["jobs"]["retrain"]["schedule"].pop("quartz_cron_expression"), id="schedule without expression"
        ),
        pytest.param(lambda r: r["jobs"]["retrain"]["tasks"][0].pop("task_key"), id="task without key"),
        pytest.param(lambda r: r["jobs"]["retrain"]["parameters"][0].pop("default"), id="parameter without default"),
        pytest.param(lambda r: r["schemas"]["lakevision"].pop("catalog_name"), id="schema without catalog"),
        pytest.param(
            lambda r: r["schemas"]["lakevision"]["grants"][0].update(privileges=["USE SCHEMA"]), id="bad privilege"
        ),
        pytest.param(lambda r: r["volumes"]["store"].update(volume_type="INTERNAL"), id="bad volume type"),
        pytest.param(lambda r: r["volumes"]["store"].update(schema="lakevision"), id="unknown field of a volume"),
    ],
)
def test_databricks_own_types_refuse(plant):
    resources = copy.deepcopy(bundle.resolve(bundle.read(), "prod", GIVEN["prod"]))["resources"]
    plant(resources)
    with pytest.raises((TypeError, ValueError, KeyError)):
        for kind, cls in TYPES.items():
            for resource in resources[kind].values():
                cls.from_dict(resource)


# ---- Quartz


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 3 ? * SUN",
        "0 30 0/6 * * ?",
        "0 0/15 8-17 ? * MON-FRI",
        "0 0 12 L * ?",
        "0 0 12 LW * ?",
        "0 0 12 L-3 * ?",
        "0 0 12 15W * ?",
        "0 0 12 ? * 6#3",
        "0 0 12 ? JAN,JUL FRIL",
        "0 0 12 1,15 * ? 2027-2030",
        "*/10 * * * * ?",
        "0 0 22-4 * * ?",
    ],
)
def test_quartz_takes(expression):
    assert quartz.fault(expression) == ""


@pytest.mark.parametrize(
    "expression, message",
    [
        pytest.param("0 3 * * 0", "five are Unix cron", id="Unix cron"),
        pytest.param("0 0 3 * * SUN", "must be ?", id="both days said"),
        pytest.param("0 0 3 ? * ?", "must be ?", id="no day said"),
        pytest.param("0 0 24 * * ?", "hours: 24 is not from 0 to 23", id="hour 24"),
        pytest.param("60 0 3 * * ?", "seconds: 60", id="second 60"),
        pytest.param("0 0 3 ? * 0", "day of week: 0 is not from 1 to 7", id="Sunday is 1"),
        pytest.param("0 0 3 ? * SUNDAY", "'SUNDAY' is no number", id="day written out"),
        pytest.param("0 0 3 ? 13 MON", "month: 13", id="month 13"),
        pytest.param("0 0 3 32 * ?", "day of month: 32", id="day 32"),
        pytest.param("0 0 3/0 * * ?", "step '0'", id="step nought"),
        pytest.param("0 0 1-2-3 * * ?", "'1-2-3' is no range", id="range of three"),
        pytest.param("0 ? 3 * * MON", "must be ?", id="question mark elsewhere"),
        pytest.param("0 0 3 ? * 6#6", "day of week", id="sixth Friday"),
        pytest.param("0 0 3 ? * MON 1969", "year: 1969", id="the past"),
        pytest.param("@daily", "1 fields", id="nickname"),
    ],
)
def test_quartz_refuses(expression, message):
    assert message in quartz.fault(expression)


# ---- the same jobs on this machine


def test_the_dev_targets_jobs_run_here_on_what_has_landed(chain, command, tmp_path):
    """retrain, then score, of the file that Databricks gets, with its parameters but for places. On a copy: other tests use the chain's lakehouse."""
    before, root = chain[1], tmp_path / "lakehouse"
    shutil.copytree(chain[0], root)
    settings = [
        f"storage.root={root}",
        "tuning.trials=1",
        "tuning.epochs=1",
        "training.epochs=2",
        "evaluation.control_epochs=1",
        "evaluation.explained=1",
        "deploy.parity_images=8",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    done = command("--target", "dev", "--job", "retrain", *words)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    summary = json.loads((REPOSITORY / ".local/runs/latest/summary.json").read_text())
    assert [(notebook["name"], notebook["status"]) for notebook in summary["notebooks"]] == [
        (name, "ok") for name in NOTEBOOKS[1:4]
    ]
    assert (summary["ingest"]["new"], summary["ingest"]["images"]) == (0, 64) and summary["capture"] == before[
        "capture"
    ]
    assert summary["train"]["run_id"] != before["train"]["run_id"] and int(summary["deploy"]["version"]) > int(
        before["deploy"]["version"]
    )
    assert summary["deploy"]["parity"] < 1e-5

    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    params = mlflow.get_run(summary["train"]["run_id"]).data.params
    assert (params["notebook.config"], params["capture.source"], params["storage.catalog"]) == ("dev", "landing", "")
    assert "training.epochs=2" in params["notebook.set"] and "storage.root" in params["notebook.place"]
    tags = mlflow.MlflowClient().get_model_version(summary["deploy"]["model"], summary["deploy"]["version"]).tags
    assert tags["config"] == "dev" and "training.epochs=2" in tags["set"]

    scored = command("--target", "dev", "--job", "score", "--set", f"storage.root={root}")
    assert scored.returncode == 0, scored.stdout[-2000:] + scored.stderr[-4000:]
    after = json.loads((REPOSITORY / ".local/runs/latest/summary.json").read_text())
    assert [(notebook["name"], notebook["status"]) for notebook in after["notebooks"]] == [
        ("02_ingest", "ok"),
        ("05_score", "ok"),
    ]
    serves = summary["deploy"]["promoted"] or before["deploy"]["promoted"]
    said = r"version \d+ scored \d+ photographs, 0 with an error" if serves else "no version serves: nothing was scored"
    assert re.search(said, scored.stdout), scored.stdout
    assert after["score"]["images"] == (64 if summary["deploy"]["promoted"] else 0)


def test_images_need_a_job_that_lands_them(command, tmp_path):
    done = command("--images", tmp_path, "--job", "retrain")
    assert done.returncode == 2 and "run --job tour first" in done.stderr


def test_production_needs_no_service_principal_here(command):
    done = command("--target", "prod", "--job", "score", "--only", "09_none")
    assert done.returncode == 2 and "has 02_ingest, 05_score" in done.stderr
