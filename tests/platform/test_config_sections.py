"""The sections are frozen, picklable and copied by dataclasses.replace(), which checks the values again."""

import copy
import dataclasses
import pickle
import re

import pytest
import yaml
from pydantic import ValidationError

from lakevision.platform import config, config_sections


@pytest.fixture
def cfg():
    return config.load("local")


def test_each_default_has_a_field_of_its_section(cfg):
    defaults = yaml.safe_load((config.FOLDER / "defaults.yml").read_text())
    assert {section: list(values) for section, values in defaults.items()} == {
        section: list(values) for section, values in dataclasses.asdict(cfg).items()
    }


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda cfg: pickle.loads(pickle.dumps(cfg))])
def test_config_survives_a_copy(cfg, copied):
    assert copied(cfg) == cfg and hash(copied(cfg)) == hash(cfg)


def test_config_and_its_sections_are_frozen(cfg):
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.training = None
    with pytest.raises(dataclasses.FrozenInstanceError):
        cfg.training.epochs = 3


def test_replace_changes_one_setting_only(cfg):
    changed = dataclasses.replace(cfg, tuning=dataclasses.replace(cfg.tuning, epochs=3))
    assert changed.tuning.epochs == 3 and cfg.tuning.epochs != 3
    assert {key for key, value in changed.flat().items() if value != cfg.flat()[key]} == {"tuning.epochs"}


@pytest.mark.parametrize(
    "section, values, message",
    [
        pytest.param("tuning", {"epochs": 0}, "must be from 1 to inf", id="range"),
        pytest.param("tuning", {"epochs": "3"}, "should be a valid integer", id="text for int"),
        pytest.param("tuning", {"width": ()}, "at least one value", id="empty list"),
        pytest.param("tuning", {"learning_rate": (0.1, 0.01)}, "low 0.1 is above high 0.01", id="order"),
        pytest.param("capture", {"source": "web"}, "Input should be 'simulated'", id="choice"),
    ],
)
def test_replace_refuses_a_wrong_value(cfg, section, values, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        dataclasses.replace(getattr(cfg, section), **values)


def test_replace_refuses_another_section(cfg):
    with pytest.raises(ValidationError, match="instance of Tuning"):
        dataclasses.replace(cfg, tuning=cfg.training)


def test_integer_for_a_float_becomes_a_float(cfg):
    value = dataclasses.replace(cfg.cache, keep_days=3).keep_days
    assert value == 3.0 and type(value) is float


def test_lists_become_tuples(cfg):
    tuning = dataclasses.replace(cfg.tuning, width=[8, 16], dropout=[0, 0.5])
    assert (tuning.width, tuning.dropout) == ((8, 16), (0.0, 0.5)) and type(tuning.dropout[0]) is float


def test_flat_names_each_setting_with_its_section(cfg):
    flat = cfg.flat()
    assert flat["training.epochs"] == cfg.training.epochs and flat["tuning.width"] == cfg.tuning.width
    assert len(flat) == sum(len(section) for section in dataclasses.asdict(cfg).values())


@pytest.mark.parametrize(
    "value, fits", [(0.0, True), (1.0, True), (-0.01, False), (1.01, False), (float("nan"), False)]
)
def test_limits_are_inclusive(cfg, value, fits):
    if fits:
        assert dataclasses.replace(cfg.training, threshold=value).threshold == value
    else:
        with pytest.raises(ValidationError, match="must be from 0.0 to 1.0"):
            dataclasses.replace(cfg.training, threshold=value)


def test_each_section_has_a_docstring():
    sections = [field.type for field in dataclasses.fields(config_sections.Config)]
    assert all((section.__doc__ or "").endswith(".") for section in sections)
