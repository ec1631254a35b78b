"""A front porch with and without a package, drawn: what a Pi camera would see, for machines that have none.

Pillow only, seeded, about 20 ms a photograph. The label can be learnt from the object alone: whether a package is there is
dealt to each episode from a shuffled deck, half and half for every camera, so that neither camera, day, hour, brightness
nor the neighbours in time say which is which. The package stands in the lower half, always.

    python -m device.simulation.porch porch.png        # a contact sheet of 24 frames

SHORTCUTS spoil a plan on purpose, for tests of the tools that must notice: the label then also follows something that is no package.
"""

import io
import math
import random
import sys
from dataclasses import dataclass, replace
from datetime import datetime, timedelta, timezone
from functools import lru_cache
from statistics import NormalDist

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from device import exif
from device.simulation.porch_objects import draw_clutter, draw_package

LABELS = ("empty", "package")
CAMERAS = ("porch-1", "porch-2", "porch-3", "porch-4")
POSITIONS = {"porch-1": (48.2082, 16.3738, 171.0), "porch-2": (48.1986, 16.3948, 160.0)}  # the others have no GPS
ZONE = timezone(timedelta(hours=1))  # the porches keep winter time all year
SHORTCUTS = {
    "labels": "the label is dealt at random, whatever stands on the porch",
    "time": "packages come in the second half of the time only",
    "brightness": "the camera exposes more where a package stands",
    "position": "the camera points a little aside where a package stands",
    "sticker": "a bright square sticks in the upper corner where a package stands",
}
PACKAGE_REGION = (
    0.0,
    0.42,
    1.0,
    1.0,
)  # left, top, right, bottom, shares of the frame: no package, nor its shadow, reaches out of it
MARGIN = 0.03  # drawn around the frame, so that a shaken camera never sees an edge
HEIGHT_M = 2.2  # metres of porch that the frame's height shows, at the wall


@dataclass(frozen=True)
class Scene:
    """One photograph to draw. seed: of the visit, the light; episode: of what stands there; frame: of shake and noise only."""

    camera: str
    taken_at: datetime  # aware
    package: bool
    seed: int
    episode: int = 0
    frame: int = 0
    size: tuple = (600, 600)  # width, height in pixels
    sequence: int = 0  # of the whole plan
    shortcut: str = ""  # one of SHORTCUTS


def plan(count, seed=7, size=(600, 600), start=datetime(2026, 3, 2, tzinfo=ZONE), days=14):
    """count Scenes of visits spread over CAMERAS and days. A longer plan begins with the shorter one of the same seed.

    A visit is two episodes on one porch within the hour, of 2 or 3 frames each, 40 s apart. Between the two 15 to 30 minutes
    pass; the light stays, and what stands there has changed.
    """
    rng = random.Random(seed)
    scenes, taken_hours, visit, decks = [], set(), 0, {}
    while len(scenes) < count:
        camera = CAMERAS[visit % len(CAMERAS)]
        visit += 1
        # Two hours a visit: at most 11 visits a day and camera; more photographs take more days.
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


def spoilt(scenes, shortcut):
    """The same plan with a shortcut (a key of SHORTCUTS) planted in it; what differs else is nothing."""
    if shortcut not in SHORTCUTS:
        raise ValueError(f"shortcut {shortcut!r} is not known; there are {', '.join(SHORTCUTS)}")
    if shortcut == "time":
        middle = sorted(scene.taken_at for scene in scenes)[len(scenes) // 2]
        return [replace(scene, package=scene.taken_at >= middle, shortcut=shortcut) for scene in scenes]
    return [replace(scene, shortcut=shortcut) for scene in scenes]


def light(scene):
    """(brightness 0 to 1.2, is_night) of a visit: the sun by the hour, and the weather."""
    rng = random.Random(scene.seed ^ 0x11647)
    hour = scene.taken_at.hour + scene.taken_at.minute / 60
    sun = math.sin(math.pi * min(max((hour - 5.5) / 14, 0), 1))  # up 05:30, down 19:30
    weather = rng.uniform(0.65, 1.0)
    lamp = 0.50 + rng.uniform(-0.08, 0.08)  # a porch lamp with infrared: grey and grainy
    return max(sun * weather, lamp), sun * weather < lamp


def picture(scene):
    """The photograph as a PIL image, RGB, of scene.size."""
    width, height = scene.size
    margin = max(2, round(MARGIN * min(width, height)))
    pad = 3 * margin if scene.shortcut == "position" else margin  # room to point aside
    canvas = _porch(scene.camera, (width + 2 * pad, height + 2 * pad)).copy()
    visit = random.Random(f"{scene.seed}-{scene.episode}")
    brightness, night = light(scene)
    _sun_patches(canvas, random.Random(scene.seed ^ 0x5A7), brightness, night)

    # The clutter and the package draw from generators of their own: a package must not move the flower pot.
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
    for (x, y), kind, seed in sorted(things, key=lambda thing: thing[0][1]):  # far things first
        rng = random.Random(seed)
        foot = (pad + (x + rng.uniform(-0.07, 0.07)) * width, pad + (y + rng.uniform(-0.04, 0.06)) * height)
        scale = metre * (0.75 + 0.6 * (foot[1] / height - 0.6))  # nearer is larger
        (draw_package if kind == "package" else draw_clutter)(canvas, foot, scale, rng)

    frame = random.Random(f"{scene.seed}-{scene.episode}-{scene.frame}")
    if scene.shortcut == "position":
        left, top = pad - margin + (margin if scene.package else -margin), pad - margin
        canvas = canvas.crop((left, top, left + width + 2 * margin, top + height + 2 * margin))
    exposure = {True: 1.3, False: 0.7}[scene.package] if scene.shortcut == "brightness" else 1.0
    seen = _expose(_shake(canvas, scene.size, margin, frame), brightness, night, frame, exposure)
    if scene.shortcut == "sticker" and scene.package:
        seen.paste(
            (235, 235, 60), (round(0.02 * width), round(0.02 * height), round(0.10 * width), round(0.10 * height))
        )
    return seen


def jpeg(scene, quality=85):
    """The photograph as a JPEG file's bytes, with the EXIF that a Pi camera writes."""
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


def key(scene):
    """Where the photograph lands: device=.../date=.../<UTC time>_<device>_<sequence>_<label>.jpg, like the agent's own."""
    utc = scene.taken_at.astimezone(timezone.utc)
    name = f"{utc:%Y-%m-%dT%H%M%S}.{utc.microsecond // 1000:03d}Z_{scene.camera}_{scene.sequence:06d}_{LABELS[scene.package]}.jpg"
    return f"device={scene.camera}/date={utc:%Y-%m-%d}/{name}"


@lru_cache(maxsize=8)
def _porch(camera, size):
    """The empty porch of one camera in flat daylight: wall, door, window, railing, boards."""
    rng = random.Random(f"porch-{camera}")
    width, height = size
    wall = tuple(rng.randint(130, 205) for _ in range(3))
    floor = tuple(min(255, base + rng.randint(-25, 25)) for base in (150, 125, 105))
    image = Image.new("RGB", size, wall)
    draw = ImageDraw.Draw(image)
    horizon = height * rng.uniform(0.50, 0.56)
    board = max(6, round(height / rng.uniform(22, 30)))
    for y in range(0, int(horizon), board):  # clapboard: a lit edge and a shaded one
        draw.line((0, y, width, y), _shade(wall, 0.82), max(1, height // 300))
        draw.line((0, y + 2, width, y + 2), _shade(wall, 1.07), 1)
    left, wide = width * rng.uniform(0.10, 0.55), width * rng.uniform(0.26, 0.32)
    door = tuple(rng.randint(45, 150) for _ in range(3))
    draw.rectangle((left - 9, 0, left + wide + 9, horizon), _shade(wall, 1.18))
    draw.rectangle((left, 0, left + wide, horizon), door)
    for row in (0.06, 0.30):
        draw.rectangle(
            (left + 0.14 * wide, row * height, left + 0.86 * wide, (row + 0.19) * height),
            outline=_shade(door, 0.7),
            width=3,
        )
    draw.ellipse((left + 0.84 * wide, 0.26 * height, left + 0.92 * wide, 0.29 * height), (190, 170, 90))
    right = left + wide + 0.06 * width if left < 0.3 * width else 0.03 * width
    draw.rectangle((right, 0.05 * height, right + 0.20 * width, 0.33 * height), (88, 104, 120), (225, 225, 220), 5)
    draw.line((right + 0.10 * width, 0.05 * height, right + 0.10 * width, 0.33 * height), (225, 225, 220), 4)
    draw.rectangle((0, horizon, width, height), floor)
    vanish = (width * rng.uniform(0.35, 0.65), -0.6 * height)
    for k in range(-12, 34):  # boards run to a vanishing point
        x = k / 20 * width
        t = (horizon - height) / (vanish[1] - height)
        draw.line((x, height, x + t * (vanish[0] - x), horizon), _shade(floor, 0.78), max(1, height // 280))
    draw.rectangle((0, horizon - 5, width, horizon + 4), _shade(floor, 0.66))
    grain = Image.frombytes("L", (width // 3, height // 3), rng.randbytes((width // 3) * (height // 3))).resize(
        size, Image.Resampling.BILINEAR
    )
    return ImageChops.add(image, grain.point(lambda v: v // 12).convert("RGB"), 1, -10)


def _shade(colour, factor):
    return tuple(min(255, round(channel * factor)) for channel in colour)


def _sun_patches(canvas, rng, brightness, night):
    """Slanting light and shadow of posts and trees; none at night."""
    if night or brightness < 0.45 or rng.random() < 0.35:
        return
    width, height = canvas.size
    small = Image.new("L", (width // 8, height // 8), 0)
    draw = ImageDraw.Draw(small)
    slant = rng.uniform(-0.6, 0.6) * small.width
    for _ in range(rng.randint(1, 4)):
        x, wide = rng.uniform(-0.2, 1.0) * small.width, rng.uniform(0.05, 0.25) * small.width
        draw.polygon(
            [(x, 0), (x + wide, 0), (x + wide + slant, small.height), (x + slant, small.height)],
            round(rng.uniform(25, 70)),
        )
    mask = small.filter(ImageFilter.GaussianBlur(1.5)).resize(canvas.size, Image.Resampling.BILINEAR)
    canvas.paste((18, 20, 30), (0, 0), mask)


def _shake(canvas, size, pad, rng):
    """The wind moves the camera by some pixels and a fraction of a degree."""
    angle = math.radians(rng.uniform(-0.6, 0.6))
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = rng.uniform(-0.5, 0.5) * pad, rng.uniform(-0.5, 0.5) * pad
    cx, cy = size[0] / 2, size[1] / 2
    matrix = (cos, -sin, pad + dx + cx - cos * cx + sin * cy, sin, cos, pad + dy + cy - sin * cx - cos * cy)
    return canvas.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@lru_cache(maxsize=16)
def _noise_table(sigma_tenths):
    """256 bytes: a uniform byte -> a Gaussian one around 128 (inverse of the normal distribution)."""
    normal = NormalDist(128, max(sigma_tenths, 1) / 10)
    return bytes(min(255, max(0, round(normal.inv_cdf((value + 0.5) / 256)))) for value in range(256))


def _expose(image, brightness, night, rng, exposure=1.0):
    """Light, white balance and sensor noise. The camera's exposure control is never quite the same twice."""
    gain = exposure * (0.42 + 0.63 * brightness) * rng.uniform(0.88, 1.12)
    if night:
        image = Image.blend(image, image.convert("L").convert("RGB"), 0.85)
        tint = (1.0, 1.0, 1.03)
    else:
        warm = (0.9 - brightness) * 0.12
        tint = (1 + warm, 1.0, 1 - warm)
    table = [min(255, round(value * gain * channel)) for channel in tint for value in range(256)]
    image = image.point(table)
    sigma = rng.uniform(50, 80) if night else rng.uniform(20, 45)
    # Neighbouring pixels of a Bayer sensor share their noise: draw it at half size, which is also four times cheaper.
    half = ((image.width + 1) // 2, (image.height + 1) // 2)
    noise = Image.frombytes("RGB", half, rng.randbytes(half[0] * half[1] * 3).translate(_noise_table(round(sigma))))
    return ImageChops.add(image, noise.resize(image.size, Image.Resampling.BILINEAR), 1, -128)


if __name__ == "__main__":
    sheet = Image.new("RGB", (6 * 202, 4 * 202), "white")
    for index, scene in enumerate(plan(600)[::25]):
        sheet.paste(picture(scene).resize((200, 200)), (index % 6 * 202, index // 6 * 202))
    sheet.save(sys.argv[1])
