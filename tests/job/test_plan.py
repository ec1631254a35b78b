"""What a command works on: the lakehouse of a set of photographs, and the notebooks of a job."""

import pytest

from lakevision.job import bundle, command_line, plan
from lakevision.platform import config


def planned(*words):
    """(tasks, Lakehouse) of a command line."""
    given = command_line.parse(list(words))
    lake = plan.lakehouse(given.images, given.target, given.set)
    return plan.tasks(given, lake), lake


def test_each_set_of_photographs_has_its_own_lakehouse(tmp_path):
    simulated = plan.lakehouse(None, "local", []).cfg
    for name in ("one", "two"):
        (tmp_path / name / "photos").mkdir(parents=True)
    one, two = (plan.lakehouse(str(tmp_path / name / "photos"), "local", []).cfg for name in ("one", "two"))
    assert len({cfg.storage.root for cfg in (simulated, one, two)}) == 3
    assert one.capture.source == "folder" and one.capture.path == str(tmp_path / "one" / "photos")


def test_target_of_the_bundle_keeps_its_places_on_this_machine():
    local, dev = (plan.lakehouse(None, target, []).cfg.flat() for target in ("local", "dev"))
    assert {name: dev[name] for name in plan.PLACE_SETTINGS} == {name: local[name] for name in plan.PLACE_SETTINGS}


def test_tasks_get_the_settings_of_the_command_line():
    tasks, lake = planned("--set", "training.epochs=3", "--from", "03_train")
    assert [task.name for task in tasks] == ["03_train", "04_deploy", "05_score"]
    assert all(task.parameters["set"] == "training.epochs=3" and task.parameters["commit"] == "" for task in tasks)
    assert lake.cfg.training.epochs == 3 and f"storage.root={lake.cfg.storage.root}" in tasks[0].parameters[
        "place"
    ].replace('"', "")


def test_only_runs_one_notebook():
    assert [task.name for task in planned("--only", "02_ingest")[0]] == ["02_ingest"]


def test_production_needs_no_service_principal_here():
    tasks, _ = planned("--target", "prod", "--job", "score")
    assert [task.name for task in tasks] == ["02_ingest", "05_score"]


@pytest.mark.parametrize(
    "words, error, message",
    [
        pytest.param(["--only", "09_none"], bundle.BundleError, "job tour has 01_capture", id="unknown notebook"),
        pytest.param(["--target", "moon"], config.ConfigError, "there are dev, local, prod", id="unknown target"),
        pytest.param(["--images", "/nowhere/at/all"], FileNotFoundError, "no such folder", id="no folder"),
        pytest.param(["--set", "training.epoch=3"], config.ConfigError, "did you mean 'epochs'", id="unknown setting"),
    ],
)
def test_wrong_option_is_an_error(words, error, message):
    with pytest.raises(error, match=message):
        planned(*words)


def test_images_need_a_job_that_captures(tmp_path):
    with pytest.raises(bundle.BundleError, match="run --job tour first"):
        planned("--images", str(tmp_path), "--job", "retrain")


def test_forget_removes_folders_below_local_only(tmp_path, monkeypatch):
    with pytest.raises(plan.OutsideLocal, match="below .local only"):
        plan.forget(tmp_path)
    monkeypatch.setattr(plan, "LOCAL", tmp_path)
    (tmp_path / "lakehouse").mkdir()
    plan.forget(tmp_path / "lakehouse")
    assert tmp_path.is_dir() and not (tmp_path / "lakehouse").exists()


@pytest.mark.parametrize(
    "words, message",
    [
        pytest.param(["--only", "09_none"], "has 01_capture", id="unknown notebook"),
        pytest.param(["run", "--only", "09_none"], "has 01_capture", id="the same after run"),
        pytest.param(["--set", "training.epoch=3"], "did you mean 'epochs'", id="unknown setting"),
        pytest.param(["serve", "--set", "training.epoch=3"], "did you mean 'epochs'", id="unknown setting of serve"),
        pytest.param(["--images", "/nowhere/at/all"], "no such folder", id="no folder"),
        pytest.param(["--target", "moon"], "there are dev, local, prod", id="unknown target"),
        pytest.param(["--fresh", "--set", "storage.root=/tmp"], "below .local only", id="fresh outside .local"),
        pytest.param(["--target", "prod", "--job", "score", "--only", "09"], "has 02_ingest, 05_score", id="prod"),
        pytest.param(["--images", "/tmp", "--job", "retrain"], "run --job tour first", id="images without capture"),
    ],
)
def test_wrong_command_line_exits_with_2_and_a_message(command, words, message):
    done = command(*words)
    assert done.returncode == 2 and message in done.stderr and "Traceback" not in done.stderr
