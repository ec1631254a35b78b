"""The plan of the simulated porch, and the photographs of its scenes."""

import io
from collections import Counter, defaultdict
from dataclasses import replace

import pytest
from PIL import Image, ImageChops

from device.simulation import porch

SIZE = (96, 96)


def test_longer_plan_starts_with_shorter_plan():
    assert porch.plan(200)[:60] == porch.plan(60) != porch.plan(60, seed=8)


def test_label_is_balanced_for_every_camera():
    labels = defaultdict(Counter)
    for scene in porch.plan(2400):
        labels[scene.camera][scene.package] += 1
    assert set(labels) == set(porch.CAMERAS)
    for count in labels.values():
        assert 0.45 < count[True] / count.total() < 0.55


def test_visit_is_two_episodes_in_the_same_light():
    visits = defaultdict(list)
    for scene in porch.plan(300)[:-6]:
        visits[scene.seed].append(scene)
    for scenes in visits.values():
        assert {scene.episode for scene in scenes} == {0, 1} and len({scene.camera for scene in scenes}) == 1
        times = [scene.taken_at for scene in scenes]
        assert times == sorted(times) and (times[-1] - times[0]).total_seconds() < 3600


def test_same_scene_draws_same_bytes():
    scene = porch.plan(1, size=SIZE)[0]
    assert porch.jpeg(scene) == porch.jpeg(scene)


def test_package_changes_only_its_region():
    scene = replace(porch.plan(1, size=(300, 300))[0], package=False)
    empty, with_package = porch.picture(scene), porch.picture(replace(scene, package=True))
    box = ImageChops.difference(empty, with_package).point(lambda value: 255 if value > 40 else 0).getbbox()
    left, top, right, bottom = (share * 300 for share in porch.PACKAGE_REGION)
    assert box and left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def test_photograph_carries_exif_and_size():
    image = Image.open(io.BytesIO(porch.jpeg(porch.plan(1, size=SIZE)[0])))
    assert image.size == SIZE and image.getexif()[271] == "RaspberryPi"


def test_key_names_device_date_and_label():
    scene = porch.plan(1)[0]
    key = porch.key(scene)
    assert key.startswith(f"device={scene.camera}/date=2026-03-") and key.endswith(
        f"_{porch.LABELS[scene.package]}.jpg"
    )


@pytest.mark.parametrize("shortcut", porch.SHORTCUTS)
def test_shortcut_is_planted_in_every_scene(shortcut):
    scenes = porch.plan(40, size=SIZE)
    spoilt = porch.spoilt(scenes, shortcut)
    assert {scene.shortcut for scene in spoilt} == {shortcut} and len(spoilt) == len(scenes)
    assert any(porch.jpeg(one) != porch.jpeg(other) for one, other in zip(scenes[:8], spoilt[:8]))


def test_unknown_shortcut_names_the_known_ones():
    with pytest.raises(ValueError, match="there are labels, time"):
        porch.spoilt([], "smell")
