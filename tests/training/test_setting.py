"""The setting of a training follows the configuration."""

from types import SimpleNamespace

import pytest

from lakevision.dataset import object_region
from lakevision.platform import config
from lakevision.training import loop, setting

CACHE = SimpleNamespace(transform="decode|upright|rgb|resize(32)", classes=["empty", "package"])


def test_first_setting_starts_in_the_middle_of_the_space():
    cfg = config.load("local", ["tuning.learning_rate=[0.001, 0.004]", "tuning.width=[8, 16]", "training.seed=9"])
    made = setting.first_setting(cfg, CACHE)
    assert (made.side, made.classes, made.width, made.seed) == (32, 2, 8, 9)
    assert made.learning_rate == pytest.approx(0.002), "the geometric mean of the range"
    assert made.weights == "none", "small_cnn has no pretrained weights"


def test_swap_needs_a_known_region():
    with pytest.raises(object_region.BadRegion, match="training.swap.*config or boxes, but is occlusion"):
        setting.first_setting(config.load("local", ["training.swap=0.5", "evaluation.region_from=occlusion"]), CACHE)
    known = config.load(
        "local", ["training.swap=0.5", "evaluation.region_from=config", "evaluation.region=[0, 0.5, 1, 1]"]
    )
    assert setting.first_setting(known, CACHE).region.box == (0.0, 0.5, 1.0, 1.0)


def test_longer_changes_only_the_epochs():
    made = setting.first_setting(config.load("local"), CACHE)
    assert setting.longer(made, 99).epochs == 99 and setting.longer(setting.longer(made, 99), made.epochs) == made


def test_swaps_without_a_region_are_refused():
    from lakevision.dataset.cache import Cache

    cfg = config.load("local", ["training.swap=0.3", "capture.source=folder"])
    with pytest.raises(object_region.BadRegion, match="training.swap needs to know where the object is"):
        loop.first_setting(cfg, Cache("", ("a", "b"), {}, "decode|rgb|resize(32)", 1, {}, {}))
