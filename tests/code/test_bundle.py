"""databricks.yml gives the order, the dependencies and the parameters; what is wrong in it is named."""

import copy

import pytest

from lakevision import bundle, workspace


@pytest.fixture
def content():
    return copy.deepcopy(bundle.read())


def test_the_job_runs_the_notebooks_in_order():
    tasks = bundle.tasks(bundle.resolve(bundle.read(), "local"))
    assert [task.name for task in tasks] == ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]
    assert all(task.parameters["config"] == "local" for task in tasks)


def test_order_follows_depends_on_not_the_file(content):
    job = content["resources"]["jobs"]["retrain"]
    job["tasks"].reverse()
    assert [task.name for task in bundle.tasks(bundle.resolve(content, "dev"))] == ["01_capture", "02_ingest", "03_train", "04_deploy", "05_score"]


def test_parameters_are_filled_in(content):
    tasks = bundle.tasks(bundle.resolve(content, "dev", {"set": "training.epochs=3", "catalog": "lab"}))
    assert tasks[0].parameters == {"config": "dev", "set": "training.epochs=3",
                                   "place": "storage.catalog=lab storage.schema=lakevision storage.root=/Volumes/lab/lakevision/store"}


def test_the_notebooks_know_every_parameter():
    for task in bundle.tasks(bundle.resolve(bundle.read(), "dev")):
        assert set(task.parameters) == set(workspace.PARAMETERS)


def _task(content, index):
    return content["resources"]["jobs"]["retrain"]["tasks"][index]


@pytest.mark.parametrize("plant, message", [
    pytest.param(lambda c: _task(c, 0)["depends_on"].append({"task_key": "train"}) if "depends_on" in _task(c, 0)
                 else _task(c, 0).update(depends_on=[{"task_key": "train"}]), "wait for each other", id="circle"),
    pytest.param(lambda c: _task(c, 2).update(depends_on=[{"task_key": "inges"}]), "depends on inges", id="dangling dependency"),
    pytest.param(lambda c: _task(c, 1)["notebook_task"].update(notebook_path="notebooks/99.py"), "does not exist", id="missing notebook"),
    pytest.param(lambda c: _task(c, 1)["notebook_task"].update(base_parameters={"set": "${var.nothing}"}), "refers to nothing", id="dangling variable"),
    pytest.param(lambda c: c["variables"].update(set={"default": "${var.set}"}), "refers to itself", id="circular variable"),
])
def test_what_is_wrong_is_named(content, plant, message):
    plant(content)
    with pytest.raises(bundle.BundleError, match=message):
        bundle.tasks(bundle.resolve(content, "dev"))


def test_an_unknown_job_names_those_there_are():
    with pytest.raises(bundle.BundleError, match="there are retrain"):
        bundle.tasks(bundle.resolve(bundle.read(), "dev"), "retrian")


@pytest.mark.parametrize("target", ["dev", "prod"])
def test_databricks_own_types_take_the_job(target):
    from databricks.bundles.jobs import Job

    resolved = bundle.resolve(bundle.read(), target)
    for job in resolved["resources"]["jobs"].values():
        Job.from_dict(job)
