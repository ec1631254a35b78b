"""bundle_check finds planted faults in databricks.yml, and none in the file as it is."""

import pytest

from lakevision.job import bundle, bundle_check
from lakevision.platform import workspace
from lakevision.platform.workspace import REPOSITORY


def job(content, name="retrain"):
    return content["resources"]["jobs"][name]


def task(content, key, name="retrain"):
    return next(entry for entry in job(content, name)["tasks"] if entry["task_key"] == key)


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_databricks_yml_has_no_fault(target, variables):
    assert bundle_check.check(bundle.read(), target, variables[target]) == []


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
        id="empty address",
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
def test_planted_fault_is_found(content, plant, message):
    plant(content)
    faults = bundle_check.check(content, "dev")
    assert any(message in fault for fault in faults), faults


@pytest.mark.parametrize(
    "plant, changes, message",
    [
        pytest.param(lambda t: t.pop("workspace"), {}, "production mode requires it", id="no root path"),
        pytest.param(lambda t: t.pop("run_as"), {}, "names 0 identities", id="no run_as"),
        pytest.param(lambda t: None, {"service_principal": ""}, "names 0 identities", id="empty service principal"),
        pytest.param(
            lambda t: None,
            {"service_principal": None},
            "${var.service_principal} refers to nothing",
            id="no service principal",
        ),
        pytest.param(
            lambda t: None,
            {"service_principle": "x"},
            "variable service_principle is given, and not declared",
            id="--var misspelt",
        ),
        pytest.param(lambda t: None, {"notify": "ops"}, "'ops' is no e-mail address", id="no address"),
        pytest.param(lambda t: None, {"retrain_schedule": "0 0 3 * * SUN"}, "must be ?", id="schedule by --var"),
        pytest.param(
            lambda t: None, {"set": "tuning.trials=none"}, "tuning.trials must be int", id="wrong value in set"
        ),
    ],
)
def test_planted_fault_of_production_is_found(content, variables, plant, changes, message):
    """changes: to the values of the variables; None removes one."""
    plant(content["targets"]["prod"])
    given = {name: value for name, value in {**variables["prod"], **changes}.items() if value is not None}
    faults = bundle_check.check(content, "prod", given)
    assert any(message in fault for fault in faults), faults


def test_command_prints_faults_and_exits_with_1(capsys):
    assert bundle_check.main(["dev"]) == 0 and "target dev: no fault found" in capsys.readouterr().out
    assert (
        bundle_check.main(["prod", "notify=ops@example.com"]) == 1
        and "${var.service_principal} refers to nothing" in capsys.readouterr().out
    )


def test_widgets_are_found_in_every_way_of_reading_them(tmp_path):
    path = tmp_path / "10_test.py"
    path.write_text(
        'a = workspace.parameter("set")\nb = dbutils.widgets.get("day")\ndbutils.widgets.text("label", "")\n'
    )
    assert bundle_check.widgets(path) == {"set", "day", "label"}
    assert bundle_check.widgets(REPOSITORY / "notebooks/03_train.py") == set(workspace.parameters())
