"""The interface of the cameras."""

from types import SimpleNamespace

import pytest

from device import camera


@pytest.mark.parametrize("kind", sorted(camera.MODULES))
def test_every_kind_loads_without_hardware(kind):
    settings = SimpleNamespace(camera=SimpleNamespace(kind=kind))
    used = camera.load(settings)
    assert all(callable(getattr(used, name)) for name in ("open", "capture", "close"))


def test_frame_carries_its_time_by_default():
    frame = camera.Frame(b"")
    assert frame.taken_at.tzinfo is not None and frame.monotonic > 0 and frame.metadata == {}


def test_maker_note_lists_gains_first():
    assert camera.maker_note(1.5, 1.249, lux="212") == "gain_r=1.50 gain_b=1.25 lux=212"
