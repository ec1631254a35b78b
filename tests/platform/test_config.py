"""Settings are typed and checked; what is unknown raises and names the nearest known one."""

import re

import pytest
import yaml

from lakevision.platform import config


def test_defaults_load_and_carry_advice():
    cfg = config.load("local")
    assert cfg.training.batch_size == 16 and cfg.tuning.learning_rate == (0.001, 0.006)
    text = (config.FOLDER / "defaults.yml").read_text()
    bare = [line for line in text.splitlines() if re.match(r"  \w+:", line) and "#" not in line]
    assert not bare, f"settings with no advice: {bare}"


@pytest.mark.parametrize("target", ["local", "dev", "prod"])
def test_every_overlay_loads(target):
    assert config.load(target).flat().keys() == config.load("local").flat().keys()


def test_later_layers_win(tmp_path):
    (tmp_path / "defaults.yml").write_text((config.FOLDER / "defaults.yml").read_text())
    (tmp_path / "mine.yml").write_text("training:\n  epochs: 5\n  batch_size: 8\n")
    cfg = config.load("mine", "training.epochs=6", folder=tmp_path)
    assert (cfg.training.epochs, cfg.training.batch_size) == (6, 8)


@pytest.mark.parametrize(
    "override, message",
    [
        pytest.param("training.epoch=3", "did you mean 'epochs'", id="near key"),
        pytest.param("trainin.epochs=3", "did you mean 'training'", id="near section"),
        pytest.param("training.zzz=3", "there are transform", id="far key"),
        pytest.param("capture.source=simulate", "did you mean 'simulated'", id="near choice"),
        pytest.param("training.epochs=three", "must be int", id="text for int"),
        pytest.param("training.epochs=true", "must be int", id="bool for int"),
        pytest.param("training.epochs=2.5", "must be int", id="float for int"),
        pytest.param("training.augment=1", "must be bool", id="int for bool"),
        pytest.param("deploy.parity_tolerance=1e-5", "YAML wants a dot", id="YAML's exponent"),
        pytest.param("training.epochs=0", "from 1 to", id="below range"),
        pytest.param("training.threshold=1.5", "from 0.0 to 1.0", id="above range"),
        pytest.param("tuning.learning_rate=[0.1]", "list of 2", id="one limit"),
        pytest.param("tuning.learning_rate=[0.1,0.01]", "above high", id="limits swapped"),
        pytest.param("tuning.width=[]", "must be a list", id="empty list"),
        pytest.param("epochs=3", "section.setting=value", id="no section"),
        pytest.param("training.epochs", "section.setting=value", id="no value"),
    ],
)
def test_a_wrong_setting_says_what_to_do(override, message):
    with pytest.raises(config.ConfigError, match=re.escape(message)):
        config.load("local", override)


def test_a_wrong_overlay_is_named(tmp_path):
    (tmp_path / "defaults.yml").write_text((config.FOLDER / "defaults.yml").read_text())
    (tmp_path / "mine.yml").write_text("training: 5\n")
    with pytest.raises(config.ConfigError, match="config/mine.yml: training holds settings"):
        config.load("mine", folder=tmp_path)
    with pytest.raises(config.ConfigError, match="there are mine"):
        config.load("yours", folder=tmp_path)


def test_a_missing_default_is_named(tmp_path):
    defaults = yaml.safe_load((config.FOLDER / "defaults.yml").read_text())
    del defaults["split"]["seed"]
    (tmp_path / "defaults.yml").write_text(yaml.safe_dump(defaults))
    (tmp_path / "local.yml").write_text("")
    with pytest.raises(config.ConfigError, match="split.seed is missing"):
        config.load("local", folder=tmp_path)


def test_values_with_spaces_survive_the_way_through_a_notebook_parameter():
    import shlex

    words = ["capture.path=\"/a folder/with 'quotes'\"", "tuning.width=[8, 16]"]
    cfg = config.load("local", shlex.join(words))
    assert cfg.capture.path == "/a folder/with 'quotes'" and cfg.tuning.width == (8, 16)


def test_lists_of_names_may_be_empty_and_dates_are_names():
    assert config.load("local").split.held_out_cameras == ()
    assert config.load("local", ["split.held_out_days=[2026-03-05, '2026-03-06']"]).split.held_out_days == (
        "2026-03-05",
        "2026-03-06",
    )
    with pytest.raises(config.ConfigError, match="tuning.width must be a list"):
        config.load("local", ["tuning.width=[]"])
    with pytest.raises(config.ConfigError, match="a list of 4 values"):
        config.load("local", ["evaluation.region=[0, 1]"])
    assert config.load("local", ["evaluation.region=[0.6, 0.1, 0.9, 0.4]"]).evaluation.region == (0.6, 0.1, 0.9, 0.4)
