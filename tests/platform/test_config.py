"""Settings are loaded in layers; an error names the source, the setting, its value and what was expected."""

import dataclasses
import pickle
import re
import shlex

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
        pytest.param("tuning.learning_rate=[0.1,0.01]", "low 0.1 is above high 0.01", id="limits swapped"),
        pytest.param("tuning.width=[]", "must be a list", id="empty list"),
        pytest.param("capture.path=5", "must be str, got 5", id="int for text"),
        pytest.param("capture.path=null", "must be str, got None", id="null for text"),
        pytest.param("training.noise=.nan", "from 0.0 to 64.0, got nan", id="not a number"),
        pytest.param("training.noise=true", "must be float, got True", id="bool for float"),
        pytest.param("training.epochs=2.0", "must be int, got 2.0", id="whole float for int"),
        pytest.param("tuning.learning_rate=0.1", "must be a list, got 0.1", id="number for list"),
        pytest.param("tuning.learning_rate=[0.1,x]", "must be float, got 'x'", id="text in list"),
        pytest.param("tuning.width=[8,0]", "must be from 1 to inf, got 0", id="below range in list"),
        pytest.param("split.held_out_days=[5]", "must be str, got 5", id="int in texts"),
        pytest.param("capture.source=[1]", "must be one of simulated, folder, landing, got [1]", id="list for choice"),
        pytest.param("training.epochs=[", "the value is not YAML", id="no YAML"),
        pytest.param("epochs=3", "section.setting=value", id="no section"),
        pytest.param("training.epochs", "section.setting=value", id="no value"),
    ],
)
def test_wrong_setting_names_what_is_expected(override, message):
    with pytest.raises(config.ConfigError, match=re.escape(message)):
        config.load("local", override)


def test_wrong_overlay_is_named(tmp_path):
    (tmp_path / "defaults.yml").write_text((config.FOLDER / "defaults.yml").read_text())
    (tmp_path / "mine.yml").write_text("training: 5\n")
    with pytest.raises(config.ConfigError, match="config/mine.yml: training holds settings"):
        config.load("mine", folder=tmp_path)
    with pytest.raises(config.ConfigError, match="there are mine"):
        config.load("yours", folder=tmp_path)


def test_missing_default_is_named(tmp_path):
    defaults = yaml.safe_load((config.FOLDER / "defaults.yml").read_text())
    del defaults["split"]["seed"]
    (tmp_path / "defaults.yml").write_text(yaml.safe_dump(defaults))
    (tmp_path / "local.yml").write_text("")
    with pytest.raises(config.ConfigError, match="split.seed is missing"):
        config.load("local", folder=tmp_path)


def test_values_with_spaces_survive_a_notebook_parameter():
    words = ["capture.path=\"/a folder/with 'quotes'\"", "tuning.width=[8, 16]"]
    cfg = config.load("local", shlex.join(words))
    assert cfg.capture.path == "/a folder/with 'quotes'" and cfg.tuning.width == (8, 16)


def test_lists_of_names_may_be_empty_or_dates():
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


@pytest.mark.parametrize(
    "override, message",
    [
        pytest.param("training.epochs=three", "my job: training.epochs must be int, got 'three'", id="value"),
        pytest.param(
            "training.epoch=3", "my job: 'epoch' is not a setting of training; did you mean 'epochs'?", id="key"
        ),
        pytest.param("training.augment='no'", "my job: training.augment must be bool, got 'no'", id="bool"),
        pytest.param(
            "deploy.parity_tolerance=1e-5",
            "my job: deploy.parity_tolerance must be float, got '1e-5' (YAML wants a dot: 1.0e-5)",
            id="exponent",
        ),
        pytest.param(
            "capture.source=simulate",
            "my job: capture.source must be one of simulated, folder, landing, got 'simulate'; "
            "did you mean 'simulated'?",
            id="choice",
        ),
        pytest.param(
            "training.threshold=1.5", "my job: training.threshold must be from 0.0 to 1.0, got 1.5", id="range"
        ),
    ],
)
def test_error_names_source_setting_value_and_expected(override, message):
    with pytest.raises(config.ConfigError) as caught:
        config.load("local", {"my job": [override]})
    assert str(caught.value) == message


def test_error_names_the_layer_of_the_value(tmp_path):
    (tmp_path / "defaults.yml").write_text((config.FOLDER / "defaults.yml").read_text())
    (tmp_path / "mine.yml").write_text("training:\n  epochs: many\n")
    with pytest.raises(config.ConfigError, match="config/mine.yml: training.epochs must be int, got 'many'"):
        config.load("mine", "training.batch_size=8", folder=tmp_path)
    assert config.load("mine", "training.epochs=3", folder=tmp_path).training.epochs == 3


def test_notebook_defaults_are_texts():
    assert config.notebook_defaults() == {"config": "local", "place": "", "set": "", "commit": ""}


def test_overrides_are_parsed_from_text_or_words():
    expected = {"a": {"b": 1, "c": ""}, "d": {"e": [1, 2]}}
    assert config.parse_overrides("a.b=1 a.c= 'd.e=[1, 2]'") == expected
    assert config.parse_overrides(["a.b=1", "a.c=", "d.e=[1, 2]"]) == expected
    with pytest.raises(config.ConfigError, match="quote as in a shell"):
        config.parse_overrides("a.b='1")


def test_record_keeps_settings_and_takes_this_machines_places():
    now = config.load("local", ["storage.root=/now", "spark.master=local[4]"])
    then = config.load("local", ["storage.root=/then", "storage.schema=old", "spark.master=yarn", "training.epochs=3"])
    values = pickle.loads(pickle.dumps(dataclasses.asdict(then)))
    values["training"].update(old=1)
    del values["training"]["swap"]
    values["lost"] = {}
    cfg, notes = config.of_record(values, now)
    assert (cfg.storage.root, cfg.storage.schema, cfg.spark, cfg.training.epochs) == ("/now", "old", now.spark, 3)
    assert notes == [
        "training.old = 1 was recorded; this code has no such setting",
        "training.swap was not recorded; it is 0.0 now",
        "section lost was recorded; this code has none",
    ]
    values["training"]["epochs"] = 0
    with pytest.raises(config.ConfigError, match="the record: training.epochs must be from 1 to inf, got 0"):
        config.of_record(values, now)
