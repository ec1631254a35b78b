"""The one transform: from the bytes of an image file to the pixels of the model, as one readable line.

The training cache, Spark scoring, the REST service and the Pi all call this file, and no other code resizes. It lives
in device/ because the Pi can carry least; it needs Pillow only. The line travels with the model:

    decode|upright|rgb|resize(128)
    decode|upright|rgb|square|resize(96)
"""

from __future__ import annotations

import io
import re
from functools import lru_cache
from typing import Any, Callable

from PIL import Image, ImageOps

# A 12 MP camera makes 12e6 pixels, a 108 MP phone 108e6. More is a decompression bomb or a mistake, and a Pi has 1 GB.
MAX_PIXELS = 120_000_000
# Pillow would try 40 more formats, among them EPS, which it hands to Ghostscript: a program. JPEG includes MPO.
FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "PPM", "JPEG2000")


class BadImage(ValueError):
    """The bytes are not an image that can be decoded; the message gives the reason."""


class BadTransform(ValueError):
    """The line of a transform is invalid; the message names the part and the known steps."""


def decode(data: bytes) -> Image.Image:
    """Opens image bytes as a fully loaded PIL image, first frame only. Raises BadImage."""
    if not data:
        raise BadImage("empty file (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise BadImage(f"too large: {error}") from error
    except Exception as error:  # Pillow's plugins raise nearly anything on hostile bytes (struct.error, KeyError, ...)
        raise BadImage(_unreadable(bytes(data[:16]))) from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImage(f"too large: {width} x {height} pixels, {MAX_PIXELS:,} at most")
    try:
        image.load()
    except Exception as error:  # the same, and MemoryError
        raise BadImage(f"damaged {image.format}: {error}") from error
    return image


OTHERS = {b"%!PS": "PostScript", b"%PDF": "PDF", b"\xc5\xd0\xd3\xc6": "PostScript", b"8BPS": "Photoshop"}
MAGIC = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG": "PNG",
    b"GIF8": "GIF",
    b"RIFF": "WEBP",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}


def _unreadable(start: bytes) -> str:
    for magic, kind in MAGIC.items():
        if start.startswith(magic):
            return f"damaged {kind}: the start is right, but the header is cut or broken"
    for magic, kind in OTHERS.items():
        if start.startswith(magic):
            return f"not an image that can be taken: {kind}; save it as JPEG or PNG"
    if start[4:8] == b"ftyp":
        return f"not an image that can be taken: HEIC, AVIF or video ({start[8:12]!r}); save it as JPEG or PNG"
    return f"not an image: starts with {start[:8]!r}"


def upright(image: Image.Image) -> Image.Image:
    """Turns the image by its EXIF orientation. Broken EXIF leaves the image as it is."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # a malformed EXIF block must not cost the photograph, whose pixels are fine
        return image


def rgb(image: Image.Image) -> Image.Image:
    """Any mode to 8-bit RGB. 16-bit values are scaled (not clipped), transparency becomes white."""
    if image.mode == "RGB":
        return image
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # "I" also holds 16-bit PNGs; convert("RGB") would clip at 255 and give white.
        if image.mode.startswith("I;16"):
            image = image.convert("I")  # first, because getextrema() fails on big-endian ones (TIFF)
        extrema: Any = image.getextrema()
        low, high = extrema
        top = 65535 if image.mode != "F" and high <= 65535 and low >= 0 else max(high, 1)
        return image.point(lambda value: value * (255 / top) + 0).convert("L").convert("RGB")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image.convert("RGB")


def square(image: Image.Image) -> Image.Image:
    """Cuts the largest centred square."""
    size = min(image.size)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return image.crop((left, top, left + size, top + size))


def resize(image: Image.Image, size: int) -> Image.Image:
    """Scales to size x size pixels, antialiased (bilinear over the whole footprint of a pixel).

    The aspect may change.
    """
    return image.resize((size, size), Image.Resampling.BILINEAR)


OPS: dict[str, Callable[..., Any]] = {
    "decode": decode,
    "upright": upright,
    "rgb": rgb,
    "square": square,
    "resize": resize,
}
STEP = re.compile(r"^([a-z_]+)(?:\((\d+)\))?$")


@lru_cache(maxsize=32)
def parse(line: str) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """The steps of a line: (name, arguments).

    Raises BadTransform unless it starts with decode and ends with resize(n).
    """
    steps: list[tuple[str, tuple[int, ...]]] = []
    for part in line.split("|"):
        match = STEP.match(part.strip())
        if not match or match[1] not in OPS:
            raise BadTransform(f"transform {line!r}: {part.strip()!r} is unknown; there are {', '.join(OPS)}")
        if (match[1] == "resize") != bool(match[2]):
            raise BadTransform(f"transform {line!r}: resize takes a size, as in resize(128), and the others take none")
        steps.append((match[1], (int(match[2]),) if match[2] else ()))
    names = [name for name, _ in steps]
    if names[0] != "decode" or names[-1] != "resize" or "rgb" not in names or names.count("decode") > 1:
        raise BadTransform(f"transform {line!r} must begin with decode, contain rgb and end with resize(n)")
    if not 8 <= steps[-1][1][0] <= 4096:
        raise BadTransform(f"transform {line!r}: resize takes 8 to 4096 pixels")
    return tuple(steps)


def image_size(line: str) -> int:
    """Height and width in pixels of the transform's output."""
    return parse(line)[-1][1][0]


side = image_size  # models registered before the packages existed call it by this name


def pixels(data: bytes, line: str) -> bytes:
    """Image bytes to raw pixels: uint8, RGB, row-major, image_size(line) ** 2 * 3 bytes.

    Raises BadImage, BadTransform.
    """
    return apply(decode(data), line).tobytes()


def apply(image: Image.Image, line: str) -> Image.Image:
    """All steps after decode, on a decoded image. Returns an RGB image of image_size(line) pixels square."""
    try:
        for name, arguments in parse(line)[1:]:
            image = OPS[name](image, *arguments)
    except BadTransform:
        raise
    except Exception as error:  # a conversion that Pillow lacks costs this image, never the batch
        raise BadImage(f"cannot convert mode {image.mode}: {error}") from error
    return image
