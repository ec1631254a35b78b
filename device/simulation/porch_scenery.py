"""The empty porch, its light and the camera's faults. Drawn with Pillow; porch.py combines them."""

from __future__ import annotations

import math
import random
from functools import lru_cache
from statistics import NormalDist

from PIL import Image, ImageChops, ImageDraw, ImageFilter

from device.simulation.porch_objects import shade


@lru_cache(maxsize=8)
def porch(camera: str, size: tuple[int, int]) -> Image.Image:
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
        draw.line((0, y, width, y), shade(wall, 0.82), max(1, height // 300))
        draw.line((0, y + 2, width, y + 2), shade(wall, 1.07), 1)
    left, wide = width * rng.uniform(0.10, 0.55), width * rng.uniform(0.26, 0.32)
    door = tuple(rng.randint(45, 150) for _ in range(3))
    draw.rectangle((left - 9, 0, left + wide + 9, horizon), shade(wall, 1.18))
    draw.rectangle((left, 0, left + wide, horizon), door)
    for row in (0.06, 0.30):
        draw.rectangle(
            (left + 0.14 * wide, row * height, left + 0.86 * wide, (row + 0.19) * height),
            outline=shade(door, 0.7),
            width=3,
        )
    draw.ellipse((left + 0.84 * wide, 0.26 * height, left + 0.92 * wide, 0.29 * height), (190, 170, 90))
    right = left + wide + 0.06 * width if left < 0.3 * width else 0.03 * width
    draw.rectangle((right, 0.05 * height, right + 0.20 * width, 0.33 * height), (88, 104, 120), (225, 225, 220), 5)
    draw.line((right + 0.10 * width, 0.05 * height, right + 0.10 * width, 0.33 * height), (225, 225, 220), 4)
    draw.rectangle((0, horizon, width, height), floor)
    vanish = (width * rng.uniform(0.35, 0.65), -0.6 * height)
    for k in range(-12, 34):  # the boards run to a vanishing point
        x = k / 20 * width
        t = (horizon - height) / (vanish[1] - height)
        draw.line((x, height, x + t * (vanish[0] - x), horizon), shade(floor, 0.78), max(1, height // 280))
    draw.rectangle((0, horizon - 5, width, horizon + 4), shade(floor, 0.66))
    grain = Image.frombytes("L", (width // 3, height // 3), rng.randbytes((width // 3) * (height // 3))).resize(
        size, Image.Resampling.BILINEAR
    )
    return ImageChops.add(image, grain.point(lambda v: v // 12).convert("RGB"), 1, -10)


def sun_patches(canvas: Image.Image, rng: random.Random, brightness: float, night: bool) -> None:
    """Draws the slanting shadows of posts and trees; none at night."""
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


def shake(canvas: Image.Image, size: tuple[int, int], pad: int, rng: random.Random) -> Image.Image:
    """Crops the canvas to `size`, moved by some pixels and a fraction of a degree, as wind moves the camera."""
    angle = math.radians(rng.uniform(-0.6, 0.6))
    cos, sin = math.cos(angle), math.sin(angle)
    dx, dy = rng.uniform(-0.5, 0.5) * pad, rng.uniform(-0.5, 0.5) * pad
    cx, cy = size[0] / 2, size[1] / 2
    matrix = (cos, -sin, pad + dx + cx - cos * cx + sin * cy, sin, cos, pad + dy + cy - sin * cx - cos * cy)
    return canvas.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BILINEAR)


@lru_cache(maxsize=16)
def _noise_table(sigma_tenths: int) -> bytes:
    """256 bytes that map a uniform byte to a Gaussian byte around 128 (inverse of the normal distribution)."""
    normal = NormalDist(128, max(sigma_tenths, 1) / 10)
    return bytes(min(255, max(0, round(normal.inv_cdf((value + 0.5) / 256)))) for value in range(256))


def expose(
    image: Image.Image, brightness: float, night: bool, rng: random.Random, exposure: float = 1.0
) -> Image.Image:
    """Applies light, white balance and sensor noise. The exposure control varies a little from frame to frame."""
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
    # Neighbouring pixels of a Bayer sensor share noise: draw it at half size, which also takes a quarter of the time.
    half = ((image.width + 1) // 2, (image.height + 1) // 2)
    noise = Image.frombytes("RGB", half, rng.randbytes(half[0] * half[1] * 3).translate(_noise_table(round(sigma))))
    return ImageChops.add(image, noise.resize(image.size, Image.Resampling.BILINEAR), 1, -128)
