"""Bytes of odd and broken images, drawn by code; corpus.py gives each an expected outcome."""

import io
import struct
import zlib
from datetime import datetime, timedelta, timezone

from PIL import Image

from device import exif

TAKEN = datetime(2026, 3, 2, 23, 15, 4, 250_000, tzinfo=timezone(timedelta(hours=2)))


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(seed=0, size=(64, 48)):
    """Coloured gradients and a box, different for each seed."""
    ramps = [Image.linear_gradient("L").rotate(90 * (seed + turn) % 360).resize(size) for turn in range(3)]
    image = Image.merge("RGB", ramps)
    image.paste(
        (seed * 53 % 256, seed * 101 % 256, seed * 197 % 256),
        (seed * 7 % 30, seed * 5 % 20, seed * 7 % 30 + 20, seed * 5 % 20 + 16),
    )
    return image


def _chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_claiming(width, height):
    """A complete PNG of few bytes whose header declares width x height pixels."""
    return (
        b"\x89PNG\r\n\x1a\n"
        + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
        + _chunk(b"IDAT", zlib.compress(bytes(1000)))
        + _chunk(b"IEND", b"")
    )


def apng_of_too_many_frames():
    """An APNG that declares 2**31 frames, one more than an int column can hold."""
    data = encoded(picture(95), "PNG")
    return data[:33] + _chunk(b"acTL", struct.pack(">II", 2**31, 0)) + data[33:]


def with_exif(change, seed):
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = "Maker", "Model"
    change(tags)
    return encoded(picture(seed), exif=tags.tobytes())


def gps(latitude, longitude):
    def change(tags):
        tags.get_ifd(0x8825).update({1: "N", 2: latitude, 3: "E", 4: longitude})

    return change


def with_zero_denominators(data):
    """The JPEG with each denominator of its GPS rationals (all 9973 here) set to zero."""
    count = data.count(struct.pack(">I", 9973))
    assert count >= 2, "expected denominators of 9973 in the GPS block"
    return data.replace(struct.pack(">I", 9973), bytes(4))


def broken_exif():
    data = encoded(picture(90), exif=exif.build(TAKEN, "a", "b"))
    broken = data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\xff\xff").replace(
        b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\0\0"
    )
    assert broken != data
    return broken


def huge_exif():
    tags = Image.Exif()
    tags[0x010E] = "x" * 60_000
    return encoded(picture(91), exif=tags.tobytes())


def frames(kind, **options):
    return encoded(picture(92), kind, save_all=True, append_images=[picture(93), picture(94)], **options)


def with_orientation(value):
    tags = Image.Exif()
    tags[0x0112] = value
    return encoded(picture(20 + value), exif=tags.tobytes())
