"""The objects on the simulated porch: the package, and clutter. porch.py places them."""

from __future__ import annotations

import math
import random

from PIL import Image, ImageDraw, ImageFilter

CARDBOARD = ((176, 131, 84), (196, 154, 108), (160, 118, 78), (206, 172, 128), (225, 220, 210), (120, 92, 66))


Point = tuple[float, float]  # x, y in pixels
Colour = tuple[int, ...]  # R, G, B, 0 to 255


def shadow(canvas: Image.Image, centre: Point, width: float, height: float, rng: random.Random) -> None:
    """Draws a soft dark ellipse at an object's foot. centre, width and height in pixels."""
    box = (int(centre[0] - width), int(centre[1] - height), int(centre[0] + width), int(centre[1] + height))
    size = (max(4, box[2] - box[0]), max(4, box[3] - box[1]))
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).ellipse(
        (size[0] * 0.12, size[1] * 0.12, size[0] * 0.88, size[1] * 0.88), round(rng.uniform(90, 140))
    )
    canvas.paste((20, 18, 18), box[:2], mask.filter(ImageFilter.GaussianBlur(max(1, size[1] / 10))))


def shade(colour: Colour, factor: float) -> Colour:
    """The colour made darker (factor < 1) or lighter (factor > 1)."""
    return tuple(max(0, min(255, round(channel * factor))) for channel in colour)


def draw_package(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    """Draws a box of 18 to 60 cm at a random angle, with tape and a label.

    foot: (x, y) pixels of the box's centre on the floor. metre: pixels per metre there.
    """
    long, deep, tall = (rng.uniform(0.34, 0.60), rng.uniform(0.26, 0.46), rng.uniform(0.18, 0.44))
    turn = rng.uniform(0.15, 1.42)  # radians; a corner faces the camera, so two faces show
    colour = rng.choice(CARDBOARD)
    flat = 0.45  # foreshortening of depth: the camera looks at the floor at an angle
    shadow(canvas, (foot[0], foot[1] + 0.02 * metre), 0.62 * (long + deep) * metre, 0.32 * (long + deep) * metre, rng)

    def ground(u: float, v: float) -> Point:
        """Pixels of the point u, v metres from the centre along the two edges."""
        x, y = u * math.cos(turn) - v * math.sin(turn), u * math.sin(turn) + v * math.cos(turn)
        return foot[0] + x * metre, foot[1] + y * metre * flat

    def on(face: str, s: float, t: float) -> Point:
        """A point of a face: s, t in 0..1. Faces: front (v = +deep/2), right (u = +long/2), top."""
        if face == "top":
            x, y = ground((s - 0.5) * long, (t - 0.5) * deep)
            return x, y - tall * metre
        x, y = ground((s - 0.5) * long, deep / 2) if face == "front" else ground(long / 2, (0.5 - s) * deep)
        return x, y - t * tall * metre

    def patch(face: str, s0: float, t0: float, s1: float, t1: float, fill: Colour) -> None:
        draw.polygon([on(face, s0, t0), on(face, s1, t0), on(face, s1, t1), on(face, s0, t1)], fill)

    draw = ImageDraw.Draw(canvas)
    patch("front", 0, 0, 1, 1, shade(colour, 0.84))
    patch("right", 0, 0, 1, 1, shade(colour, 0.64))
    patch("top", 0, 0, 1, 1, shade(colour, 1.10))
    tape = shade(colour, rng.choice((0.72, 1.3)))
    patch("top", 0, 0.44, 1, 0.56, tape)
    patch("right", 0.44, 0.72, 0.56, 1, shade(tape, 0.7))
    face = rng.choice(("front", "right", "top"))
    s, t = rng.uniform(0.10, 0.45), rng.uniform(0.15, 0.45)
    patch(face, s, t, s + 0.42, t + 0.40, (238, 236, 230))
    for line in range(3):
        patch(face, s + 0.05, t + 0.07 + 0.10 * line, s + 0.34, t + 0.11 + 0.10 * line, (70, 70, 75))
    for face, s in (("front", 0), ("front", 1), ("right", 1)):
        draw.line([on(face, s, 0), on(face, s, 1)], shade(colour, 0.5), max(1, round(metre / 200)))


def draw_clutter(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    """Draws an object that is not a package. foot, metre: as for draw_package()."""
    rng.choice((_plant, _ball, _boots, _mat, _watering_can, _cat, _newspaper))(canvas, foot, metre, rng)


def _plant(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    pot, tall = rng.uniform(0.10, 0.17) * metre, rng.uniform(0.18, 0.28) * metre
    shadow(canvas, (x, y), 1.5 * pot, 0.6 * pot, rng)
    draw = ImageDraw.Draw(canvas)
    clay = rng.choice(((170, 92, 62), (190, 180, 165), (70, 72, 80), (150, 116, 84)))
    draw.polygon([(x - pot, y - tall), (x + pot, y - tall), (x + 0.7 * pot, y), (x - 0.7 * pot, y)], clay)
    draw.ellipse((x - pot, y - tall - 0.25 * pot, x + pot, y - tall + 0.25 * pot), shade(clay, 0.7))
    for _ in range(rng.randint(18, 34)):
        angle, reach = rng.uniform(0.15, math.pi - 0.15), rng.uniform(0.5, 2.4) * pot
        leaf = (x + reach * math.cos(angle), y - tall - reach * math.sin(angle))
        size = rng.uniform(0.14, 0.38) * pot
        draw.ellipse(
            (leaf[0] - size, leaf[1] - 0.7 * size, leaf[0] + size, leaf[1] + 0.7 * size),
            (rng.randint(30, 90), rng.randint(90, 150), rng.randint(30, 80)),
        )


def _ball(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    radius = rng.uniform(0.09, 0.15) * metre
    shadow(canvas, (x, y), 1.4 * radius, 0.5 * radius, rng)
    draw = ImageDraw.Draw(canvas)
    colour = rng.choice(((196, 60, 50), (230, 228, 220), (60, 90, 170), (205, 140, 60), (172, 128, 86)))
    draw.ellipse((x - radius, y - 2 * radius, x + radius, y), shade(colour, 0.75))
    draw.ellipse((x - 0.85 * radius, y - 1.95 * radius, x + 0.75 * radius, y - 0.35 * radius), colour)
    draw.arc((x - radius, y - 1.6 * radius, x + radius, y - 0.5 * radius), 0, 180, shade(colour, 0.4), 3)


def _boots(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    colour = rng.choice(((60, 48, 40), (40, 70, 52), (150, 46, 44), (140, 104, 70)))
    wide, tall = 0.09 * metre, rng.uniform(0.20, 0.30) * metre
    shadow(canvas, (x, y), 3.2 * wide, 1.0 * wide, rng)
    draw = ImageDraw.Draw(canvas)
    for offset, tone in ((-1.2, 0.85), (0.4, 1.0)):
        left = x + offset * wide
        draw.rounded_rectangle((left, y - tall, left + wide, y), 0.25 * wide, shade(colour, tone))
        draw.rounded_rectangle((left, y - 0.6 * wide, left + 2.0 * wide, y), 0.3 * wide, shade(colour, tone * 1.1))
        draw.ellipse((left, y - tall - 0.2 * wide, left + wide, y - tall + 0.2 * wide), (20, 20, 20))


def _mat(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    half, deep, skew = rng.uniform(0.25, 0.4) * metre, rng.uniform(0.09, 0.14) * metre, rng.uniform(-0.1, 0.1) * metre
    colour = rng.choice(((96, 70, 50), (80, 84, 90), (120, 50, 46), (150, 120, 84)))
    draw = ImageDraw.Draw(canvas)
    draw.polygon(
        [
            (x - half + skew, y - deep),
            (x + half + skew, y - deep),
            (x + half - skew, y + deep),
            (x - half - skew, y + deep),
        ],
        colour,
    )
    for k in range(1, 6):
        t = -deep + 2 * deep * k / 6
        draw.line((x - 0.9 * half, y + t, x + 0.9 * half, y + t), shade(colour, 0.8), 2)


def _watering_can(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    wide, tall = rng.uniform(0.09, 0.13) * metre, rng.uniform(0.18, 0.24) * metre
    colour = rng.choice(((70, 110, 90), (120, 128, 134), (60, 84, 140)))
    flip = rng.choice((-1, 1))
    shadow(canvas, (x, y), 1.6 * wide, 0.6 * wide, rng)
    draw = ImageDraw.Draw(canvas)
    draw.line(
        (x + flip * wide, y - 0.3 * tall, x + flip * 2.4 * wide, y - 1.15 * tall),
        shade(colour, 0.85),
        max(2, round(0.05 * metre)),
    )
    draw.arc(
        (x - wide, y - 1.6 * tall, x + wide, y - 0.5 * tall), 180, 360, shade(colour, 0.7), max(2, round(0.025 * metre))
    )
    draw.polygon([(x - wide, y), (x + wide, y), (x + 0.8 * wide, y - tall), (x - 0.8 * wide, y - tall)], colour)
    draw.ellipse((x - 0.8 * wide, y - tall - 0.2 * wide, x + 0.8 * wide, y - tall + 0.2 * wide), shade(colour, 0.6))


def _cat(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    colour = rng.choice(((60, 56, 54), (182, 122, 70), (200, 196, 190), (120, 104, 90)))
    flip = rng.choice((-1, 1))
    size = rng.uniform(0.13, 0.18) * metre
    shadow(canvas, (x, y), 1.6 * size, 0.5 * size, rng)
    draw = ImageDraw.Draw(canvas)
    draw.ellipse((x - size, y - 1.5 * size, x + size, y), colour)
    head = (x + flip * 0.6 * size, y - 1.75 * size)
    draw.ellipse(
        (head[0] - 0.5 * size, head[1] - 0.45 * size, head[0] + 0.5 * size, head[1] + 0.45 * size), shade(colour, 1.08)
    )
    for ear in (-0.3, 0.3):
        draw.polygon(
            [
                (head[0] + (ear - 0.15) * size, head[1] - 0.3 * size),
                (head[0] + (ear + 0.15) * size, head[1] - 0.3 * size),
                (head[0] + ear * size, head[1] - 0.8 * size),
            ],
            colour,
        )
    draw.arc(
        (x - flip * 1.9 * size - 0.6 * size, y - 1.1 * size, x - flip * 1.9 * size + 1.2 * size, y),
        60,
        230,
        colour,
        max(2, round(0.16 * size)),
    )


def _newspaper(canvas: Image.Image, foot: Point, metre: float, rng: random.Random) -> None:
    x, y = foot
    half, thick, rise = rng.uniform(0.15, 0.22) * metre, 0.035 * metre, rng.uniform(-0.06, 0.06) * metre
    shadow(canvas, (x, y), 1.2 * half, 2.0 * thick, rng)
    draw = ImageDraw.Draw(canvas)
    draw.line((x - half, y - thick - rise, x + half, y - thick + rise), (222, 220, 212), max(3, round(2 * thick)))
    draw.line(
        (x - half, y - 0.4 * thick - rise, x + half, y - 0.4 * thick + rise),
        (176, 174, 168),
        max(1, round(0.5 * thick)),
    )
    draw.ellipse((x + half - thick, y - 2 * thick + rise, x + half + thick, y + rise), (150, 148, 142))
