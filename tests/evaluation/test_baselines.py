"""Baselines that cannot see the object: leakage, metadata, the nearest image in time."""

from lakevision.dataset import split
from lakevision.evaluation import baselines
from lakevision.platform import config

SETTINGS = config.load("local").split


def test_leakage_is_the_gain_of_a_random_split(porch):
    images, _ = porch(count=200, size=64)
    placements = split.used(split.assign(images, SETTINGS)[0])
    leaked = baselines.leakage(baselines.joined(images, placements))
    assert leaked["random_split"] > 0.85 and leaked["episodes"] < 0.7
