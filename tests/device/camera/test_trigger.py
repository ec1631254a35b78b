"""The rules for keeping frames."""

import io
import time
from datetime import UTC, datetime
from types import SimpleNamespace

import harness
import pytest
from PIL import Image, ImageEnhance

from device.camera import Frame, trigger
from device.simulation.porch import Scene, picture


@pytest.mark.parametrize(
    "hours, clock, active",
    [
        ("", "03:00", True),
        ("06:00-22:00", "05:59", False),
        ("06:00-22:00", "06:00", True),
        ("06:00-22:00", "22:00", False),
        ("22:00-06:00", "23:00", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "12:00", False),
    ],
)
def test_active_hours_include_start_but_not_end(hours, clock, active):
    assert trigger.is_active(hours, time.strptime(clock, "%H:%M")) is active


def jpeg(image):
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return out.getvalue()


def scene(package, frame=0):
    return picture(Scene("porch-1", datetime(2026, 3, 2, 12, tzinfo=UTC), package, 5, frame))


def test_parcel_is_change_but_noise_shake_and_clouds_not():
    settings = SimpleNamespace(change_level=0.08, change_area=0.02, keep_every_s=3600.0)
    change = trigger.SceneChange(settings)
    empty = scene(False)
    kept = [
        change.wants(Frame(jpeg(image), monotonic=second))
        for second, image in enumerate(
            (empty, scene(False), ImageEnhance.Brightness(empty).enhance(0.93), scene(True), scene(True))
        )
    ]
    assert kept == [True, False, False, True, False]


def test_frame_is_kept_every_keep_every_s():
    change = trigger.SceneChange(SimpleNamespace(change_level=0.08, change_area=0.02, keep_every_s=60.0))
    grey = jpeg(Image.new("RGB", (64, 48), "grey"))
    assert [change.wants(Frame(grey, monotonic=second)) for second in (0.0, 59.0, 60.0, 61.0, 120.0)] == [
        True,
        False,
        True,
        False,
        True,
    ]


def test_agent_keeps_only_changed_scenes(agent, photos, tmp_path):
    still = tmp_path / "still"
    still.mkdir()
    for index, photo in enumerate((0, 0, 0, 1, 1, 0)):
        (still / f"{index}.jpg").write_bytes((photos / f"photo_{photo}.jpg").read_bytes())
    agent.configure(capture={"trigger": "change"}, camera={"folder": str(still), "loop": False})
    agent.run("capture")
    assert len(agent.acks()) == 3, "the first, the second scene, and the first again"


def test_inactive_hours_feed_watchdog_but_keep_no_frame(agent):
    now = time.localtime(time.time() + 7200)
    later = f"{now.tm_hour:02d}:00-{now.tm_hour:02d}:01"
    agent.configure(capture={"active_hours": later, "interval_s": 0.05})
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("capture", env=systemd.env(watchdog_s=0.3))
        harness.until(lambda: systemd.heard().count("WATCHDOG=1") >= 3, "frames feed the watchdog at night too")
        agent.stop(process)
    assert agent.waiting() == []
