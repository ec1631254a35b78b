"""A drawn front porch with and without a package, for machines without a camera.

Pillow only, seeded, about 20 ms per photograph. The label can be learnt from the object alone. A shuffled deck deals
the package to the episodes, half and half for every camera. So neither camera, day, hour, brightness nor neighbouring
photographs reveal the label. The package always stands in the lower half.

    python -m device.simulation.porch porch.png        # a contact sheet of 24 frames

SHORTCUTS spoil a plan on purpose, to test the tools that must notice: the label then also follows something else.
"""

from __future__ import annotations

import io
import math
import random
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone

from PIL import Image

from device import exif
from device.simulation.porch_objects import draw_clutter, draw_package
from device.simulation.porch_scenery import expose, porch, shake, sun_patches

LABELS = ("empty", "package")
CAMERAS = ("porch-1", "porch-2", "porch-3", "porch-4")
POSITIONS = {"porch-1": (48.2082, 16.3738, 171.0), "porch-2": (48.1986, 16.3948, 160.0)}  # the others have no GPS
ZONE = timezone(timedelta(hours=1))  # the porches keep winter time all year
SHORTCUTS = {
    "labels": "the label is dealt at random, whatever stands on the porch",
    "time": "packages come in the second half of the time only",
    "brightness": "the camera exposes more if a package stands there",
    "position": "the camera points a little aside if a package stands there",
    "sticker": "a bright square sticks in the upper corner if a package stands there",
}
# left, top, right, bottom as shares of the frame: no package, nor its shadow, extends beyond this region
PACKAGE_REGION = (0.0, 0.42, 1.0, 1.0)
MARGIN = 0.03  # drawn around the frame, so that a shaken camera never shows an edge
HEIGHT_M = 2.2  # metres of porch in the frame's height, at the wall


@dataclass(frozen=True)
class Scene:
    """One photograph to draw."""

    camera: str
    taken_at: datetime  # aware
    package: bool
    seed: int  # of the visit and its light
    episode: int = 0  # selects the objects on the porch
    frame: int = 0  # selects only shake and noise
    size: tuple[int, int] = (600, 600)  # width, height in pixels
    sequence: int = 0  # in the whole plan
    shortcut: str = ""  # one of SHORTCUTS


def plan(
    count: int,
    seed: int = 7,
    size: tuple[int, int] = (600, 600),
    start: datetime = datetime(2026, 3, 2, tzinfo=ZONE),  # noqa: B008  an immutable constant
    days: int = 14,
) -> list[Scene]:
    """Plans `count` Scenes of visits, spread over CAMERAS and days. A longer plan starts with the shorter one.

    A visit is two episodes on one porch within the hour, of 2 or 3 frames each, 40 s apart. Between the episodes 15
    to 30 minutes pass; the light stays the same, and the objects on the porch change.
    """
    rng = random.Random(seed)
    scenes: list[Scene] = []
    taken_hours: set[tuple[str, int, int]] = set()
    decks: dict[str, list[bool]] = {}
    visit = 0
    while len(scenes) < count:
        camera = CAMERAS[visit % len(CAMERAS)]
        visit += 1
        # A visit takes two hours, so a camera has at most 11 a day; more photographs need more days.
        slots = [
            (day, hour) for day in range(days) for hour in range(0, 24, 2) if (camera, day, hour) not in taken_hours
        ]
        if not slots:
            days += days
            continue
        day, hour = rng.choice(slots)
        taken_hours.add((camera, day, hour))
        visit_seed = rng.getrandbits(48)
        at = start + timedelta(days=day, hours=hour, minutes=rng.uniform(0, 40), milliseconds=rng.randrange(1000))
        frames = rng.randint(2, 3)
        for episode in range(2):
            if not decks.get(camera):
                decks[camera] = rng.sample([False, True] * 12, 24)
            package = decks[camera].pop()
            began = at + episode * timedelta(minutes=rng.uniform(15, 30), seconds=40 * frames)
            scenes += [
                Scene(camera, began + timedelta(seconds=40 * k), package, visit_seed, episode, k, size, len(scenes) + k)
                for k in range(frames)
            ]
    return scenes[:count]


def spoilt(scenes: list[Scene], shortcut: str) -> list[Scene]:
    """The same plan with a planted shortcut, a key of SHORTCUTS; nothing else changes. Raises ValueError."""
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut {shortcut!r} is not known; there are {', '.join(SHORTCUTS)}")
    if shortcut == "time":
        middle = sorted(scene.taken_at for scene in scenes)[len(scenes) // 2]
        return [replace(scene, package=scene.taken_at >= middle, shortcut=shortcut) for scene in scenes]
    return [replace(scene, shortcut=shortcut) for scene in scenes]


def light(scene: Scene) -> tuple[float, bool]:
    """(brightness 0 to 1.2, True at night) of a visit, from the hour of the day and the weather."""
    rng = random.Random(scene.seed ^ 0x11647)
    hour = scene.taken_at.hour + scene.taken_at.minute / 60
    sun = math.sin(math.pi * min(max((hour - 5.5) / 14, 0), 1))  # up 05:30, down 19:30
    weather = rng.uniform(0.65, 1.0)
    lamp = 0.50 + rng.uniform(-0.08, 0.08)  # a porch lamp with infrared: grey and grainy
    return max(sun * weather, lamp), sun * weather < lamp


def picture(scene: Scene) -> Image.Image:
    """The photograph as a PIL image, RGB, of scene.size."""
    width, height = scene.size
    margin = max(2, round(MARGIN * min(width, height)))
    pad = 3 * margin if scene.shortcut == "position" else margin  # room to point aside
    canvas = porch(scene.camera, (width + 2 * pad, height + 2 * pad)).copy()
    visit = random.Random(f"{scene.seed}-{scene.episode}")
    brightness, night = light(scene)
    sun_patches(canvas, random.Random(scene.seed ^ 0x5A7), brightness, night)
    _place_objects(canvas, scene, pad, visit)

    frame = random.Random(f"{scene.seed}-{scene.episode}-{scene.frame}")
    if scene.shortcut == "position":
        left, top = pad - margin + (margin if scene.package else -margin), pad - margin
        canvas = canvas.crop((left, top, left + width + 2 * margin, top + height + 2 * margin))
    exposure = {True: 1.3, False: 0.7}[scene.package] if scene.shortcut == "brightness" else 1.0
    photo = expose(shake(canvas, scene.size, margin, frame), brightness, night, frame, exposure)
    if scene.shortcut == "sticker" and scene.package:
        photo.paste(
            (235, 235, 60), (round(0.02 * width), round(0.02 * height), round(0.10 * width), round(0.10 * height))
        )
    return photo


def _place_objects(canvas: Image.Image, scene: Scene, pad: int, visit: random.Random) -> None:
    """Draws the clutter and the package. Each has its own generator, so a package does not move the flower pot."""
    width, height = scene.size
    metre = height / HEIGHT_M
    spots = [(x, y) for x in (0.20, 0.42, 0.62, 0.82) for y in (0.70, 0.86)]
    visit.shuffle(spots)
    things = []
    for index in range(visit.choice((0, 1, 1, 2, 2, 3))):
        things.append((spots[index + 1], "clutter", visit.getrandbits(32)))
    package = scene.package
    if scene.shortcut == "labels":
        package = random.Random(f"dealt-{scene.seed}-{scene.episode}").random() < 0.5
    if package:
        things.append((spots[0], "package", visit.getrandbits(32)))
    for (x, y), kind, seed in sorted(things, key=lambda thing: thing[0][1]):  # distant objects first
        rng = random.Random(seed)
        foot = (pad + (x + rng.uniform(-0.07, 0.07)) * width, pad + (y + rng.uniform(-0.04, 0.06)) * height)
        scale = metre * (0.75 + 0.6 * (foot[1] / height - 0.6))  # nearer objects look larger
        (draw_package if kind == "package" else draw_clutter)(canvas, foot, scale, rng)


def jpeg(scene: Scene, quality: int = 85) -> bytes:
    """The photograph as JPEG bytes, with the EXIF block of a Pi camera."""
    brightness, night = light(scene)
    rng = random.Random(f"exif-{scene.seed}-{scene.episode}-{scene.frame}")
    exposure = min(0.25, 0.004 / brightness**2 * rng.uniform(0.7, 1.4))
    iso = rng.choice((400, 640, 800)) if night else rng.choice((50, 64, 100, 125))
    block = exif.build(
        scene.taken_at,
        "RaspberryPi",
        "RP_OV5647",
        exposure_s=exposure,
        f_number=2.9,
        iso=iso,
        focal_mm=3.6,
        position=POSITIONS.get(scene.camera),
        serial=scene.camera,
        maker_note=f"ev=-1 mlux=-1 exp={round(exposure * 1e6)} ag={iso * 256 // 100} focus=255 gain_r=1.2 gain_b=1.3",
    )
    out = io.BytesIO()
    picture(scene).save(out, "JPEG", quality=quality, exif=block)
    return out.getvalue()


def key(scene: Scene) -> str:
    """The photograph's key in the landing zone, named like the agent's own.

    device=.../date=.../<UTC time>_<device>_<sequence>_<label>.jpg
    """
    utc = scene.taken_at.astimezone(timezone.utc)
    stamp = f"{utc:%Y-%m-%dT%H%M%S}.{utc.microsecond // 1000:03d}Z"
    name = f"{stamp}_{scene.camera}_{scene.sequence:06d}_{LABELS[scene.package]}.jpg"
    return f"device={scene.camera}/date={utc:%Y-%m-%d}/{name}"


if __name__ == "__main__":
    sheet = Image.new("RGB", (6 * 202, 4 * 202), "white")
    for index, scene in enumerate(plan(600)[::25]):
        sheet.paste(picture(scene).resize((200, 200)), (index % 6 * 202, index // 6 * 202))
    sheet.save(sys.argv[1])
