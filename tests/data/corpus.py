"""Planted files, drawn by code, each with the expected outcome.

Devices, people and broken cards put such files into a landing zone.
"""

import io
import struct
import zlib
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone

from PIL import Image
from PIL.TiffImagePlugin import IFDRational as R

from device import exif

TAKEN = datetime(2026, 3, 2, 23, 15, 4, 250_000, tzinfo=timezone(timedelta(hours=2)))


@dataclass(frozen=True)
class Planted:
    """One file.

    name: path in the landing zone; reason: words of the rejection, "" if the file decodes; expected: attributes of the
    Photo.
    """

    id: str
    name: str
    data: bytes
    reason: str = ""
    expected: dict = field(default_factory=dict)


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


def _many_frames():
    """An APNG that declares 2**31 frames, one more than an int column can hold."""
    data = encoded(picture(95), "PNG")
    return data[:33] + _chunk(b"acTL", struct.pack(">II", 2**31, 0)) + data[33:]


def _with_exif(change, seed):
    tags = Image.Exif()
    tags[0x010F], tags[0x0110] = "Maker", "Model"
    change(tags)
    return encoded(picture(seed), exif=tags.tobytes())


def _gps(latitude, longitude):
    def change(tags):
        tags.get_ifd(0x8825).update({1: "N", 2: latitude, 3: "E", 4: longitude})

    return change


def _rationals(data):
    """The JPEG with each denominator of its GPS rationals (all 9973 here) set to zero."""
    count = data.count(struct.pack(">I", 9973))
    assert count >= 2, "expected denominators of 9973 in the GPS block"
    return data.replace(struct.pack(">I", 9973), bytes(4))


def _broken_exif():
    data = encoded(picture(90), exif=exif.build(TAKEN, "a", "b"))
    broken = data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\xff\xff").replace(
        b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\0\0"
    )
    assert broken != data
    return broken


def _huge_exif():
    tags = Image.Exif()
    tags[0x010E] = "x" * 60_000
    return encoded(picture(91), exif=tags.tobytes())


def _frames(kind, **options):
    return encoded(picture(92), kind, save_all=True, append_images=[picture(93), picture(94)], **options)


def _orientation(value):
    tags = Image.Exif()
    tags[0x0112] = value
    return encoded(picture(20 + value), exif=tags.tobytes())


def _decoded(mode="RGB", format="JPEG", size=(64, 48), **more):
    return {"mode": mode, "format": format, "width": size[0], "height": size[1], **more}


def corpus():
    """All planted files; names and bytes are unique."""
    grey, deep = picture(3).convert("L"), Image.new("I;16", (64, 48))
    deep.putdata([index * 21 for index in range(64 * 48)])
    alpha = picture(5)
    alpha.putalpha(picture(6).convert("L"))
    zero = (R(48, 9973), R(9, 9973), R(1, 9973))
    jpeg, png = encoded(picture(1, (200, 150))), encoded(picture(1, (200, 150)), "PNG")
    files = [
        ("plain JPEG", "plain.jpg", encoded(picture(2)), "", _decoded()),
        ("zero bytes", "empty.jpg", b"", "empty file"),
        ("truncated JPEG", "cut.jpg", jpeg[: len(jpeg) // 2], "damaged JPEG"),
        ("JPEG header only", "header.jpg", jpeg[:20], "damaged JPEG"),
        ("truncated PNG", "cut.png", png[: len(png) // 2], "damaged PNG"),
        ("noise", "noise.jpg", bytes(range(256)) * 8, "not an image"),
        ("text", "text.jpg", "Übertragung fehlgeschlagen\n".encode(), "not an image"),
        ("HTML", "page.jpg", b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>", "not an image"),
        ("PostScript", "print.eps", encoded(picture(4), "EPS"), "PostScript"),
        ("PostScript called JPEG", "print.jpg", encoded(picture(7), "EPS"), "PostScript"),
        ("PDF", "scan.jpg", b"%PDF-1.7\n1 0 obj", "PDF"),
        ("HEIC", "phone.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        ("PNG called .jpg", "really_png.jpg", encoded(picture(8), "PNG"), "", _decoded(format="PNG")),
        ("JPEG called .png", "really_jpeg.png", encoded(picture(9)), "", _decoded()),
        ("animated GIF", "moving.gif", _frames("GIF"), "", _decoded("P", "GIF", frames=3)),
        ("animated WebP", "moving.webp", _frames("WEBP"), "", _decoded("RGB", "WEBP", frames=3)),
        ("APNG", "moving.png", _frames("PNG"), "", _decoded("RGB", "PNG", frames=3)),
        ("APNG of 2**31 frames", "endless.png", _many_frames(), "", _decoded("RGB", "PNG", frames=2**31 - 1)),
        (
            "multi-page TIFF",
            "pages.tif",
            encoded(picture(92), "TIFF", save_all=True, append_images=[picture(1, (9, 9))]),
            "",
            _decoded(format="TIFF", frames=2),
        ),
        ("MPO", "stereo.jpg", _frames("MPO"), "", _decoded(format="MPO", frames=3)),
        ("BMP", "old.bmp", encoded(picture(10), "BMP"), "", _decoded(format="BMP")),
        ("JPEG 2000", "new.jp2", encoded(picture(11), "JPEG2000"), "", _decoded(format="JPEG2000")),
        ("16-bit PNG", "deep.png", encoded(deep, "PNG"), "", _decoded("I;16", "PNG")),
        ("16-bit TIFF", "deep.tif", encoded(deep, "TIFF"), "", _decoded("I;16", "TIFF")),
        (
            "big-endian 16-bit TIFF",
            "deep_be.tif",
            encoded(Image.frombytes("I;16B", (64, 48), bytes(range(256)) * 24), "TIFF"),
            "",
            _decoded("I;16B", "TIFF"),
        ),
        ("float TIFF", "float.tif", encoded(grey.convert("F"), "TIFF"), "", _decoded("F", "TIFF")),
        ("LAB TIFF", "lab.tif", encoded(Image.new("LAB", (64, 48), (120, 3, 9)), "TIFF"), "", _decoded("LAB", "TIFF")),
        ("CMYK", "print_cmyk.jpg", encoded(picture(12).convert("CMYK")), "", _decoded("CMYK")),
        ("greyscale", "grey.jpg", encoded(grey), "", _decoded("L")),
        ("palette", "palette.png", encoded(picture(13).quantize(16), "PNG"), "", _decoded("P", "PNG")),
        ("bilevel", "fax.png", encoded(picture(14).convert("1"), "PNG"), "", _decoded("1", "PNG")),
        ("alpha", "alpha.png", encoded(alpha, "PNG"), "", _decoded("RGBA", "PNG")),
        ("broken EXIF", "broken_exif.jpg", _broken_exif(), "", _decoded(captured_from="file")),
        (
            "GPS with zero denominators",
            "nowhere.jpg",
            _rationals(_with_exif(_gps(zero, zero), 30)),
            "",
            _decoded(latitude=None, longitude=None),
        ),
        (
            "GPS off the globe",
            "moon.jpg",
            _with_exif(_gps((R(95), R(0), R(0)), (R(10), R(0), R(0))), 31),
            "",
            _decoded(latitude=None, longitude=None),
        ),
        ("huge EXIF", "wordy.jpg", _huge_exif(), "", _decoded()),
        ("decompression bomb", "bomb.png", png_claiming(50_000, 50_000), "too large"),
        ("quiet bomb", "bomb_small.png", png_claiming(12_000, 12_000), "too large"),
        (
            "endless strip",
            "strip.png",
            encoded(Image.new("RGB", (1, 60_000), "teal"), "PNG"),
            "",
            _decoded(format="PNG", size=(1, 60_000)),
        ),
        (
            "one pixel",
            "pixel.png",
            encoded(Image.new("RGB", (1, 1), "teal"), "PNG"),
            "",
            _decoded(format="PNG", size=(1, 1)),
        ),
        (
            "all EXIF",
            "all_exif.jpg",
            encoded(
                picture(40),
                exif=exif.build(
                    TAKEN,
                    "RaspberryPi",
                    "imx708",
                    exposure_s=0.01,
                    f_number=1.8,
                    iso=200,
                    focal_mm=4.7,
                    position=(-33.856784, 151.215297, 4.5),
                    serial="pi-7",
                ),
            ),
            "",
            _decoded(
                captured_from="exif",
                captured_at=TAKEN.astimezone(UTC),
                device="pi-7",
                make="RaspberryPi",
                model="imx708",
                iso=200,
            ),
        ),
        (
            "a year that no camera saw",
            "1815-06-18T120000Z_cam_empty.jpg",
            encoded(picture(41)),
            "",
            _decoded(captured_from="file"),
        ),
        (
            "a year far away",
            "9998-06-18T120000Z_cam_empty.jpg",
            encoded(picture(42)),
            "",
            _decoded(captured_from="file"),
        ),
        (
            "first accelerator, colons",
            "2021-07-13T03:04:54_rpi_sensor_3_front_0.jpg",
            encoded(picture(43)),
            "",
            _decoded(
                captured_from="name",
                captured_at=datetime(2021, 7, 13, 3, 4, 54, tzinfo=UTC),
                device="rpi_sensor_3_front",
            ),
        ),
        (
            "first accelerator, %3A",
            "2021-07-13T03%3A06%3A54_rpi_sensor_3_front_0.jpg",
            encoded(picture(44)),
            "",
            _decoded(
                captured_from="name",
                captured_at=datetime(2021, 7, 13, 3, 6, 54, tzinfo=UTC),
                device="rpi_sensor_3_front",
            ),
        ),
        (
            "the agent's name",
            "device=porch-9/date=2026-03-02/2026-03-02T081502.123Z_0a1b2c3d_000007_empty.jpg",
            encoded(picture(45)),
            "",
            _decoded(
                captured_from="name", captured_at=datetime(2026, 3, 2, 8, 15, 2, 123_000, tzinfo=UTC), device="porch-9"
            ),
        ),
    ]
    files += [
        (f"EXIF orientation {value}", f"turned_{value}.jpg", _orientation(value), "", _decoded(orientation=value))
        for value in range(1, 9)
    ]
    files += [("EXIF orientation 9", "turned_9.jpg", _orientation(9), "", _decoded(orientation=None))]
    odd = (
        "with space.jpg",
        " leading.jpg",
        "trailing .jpg",
        "50%.jpg",
        "%41.jpg",
        "a+b&c.jpg",
        "hash#.jpg",
        "what?.jpg",
        "star*.jpg",
        "{a,b}.jpg",
        "x[1].jpg",
        "back\\slash.jpg",
        "two\nlines.jpg",
        "gr\u00f6\u00dfe.jpg",
        "gro\u0308\u00dfe.jpg",
        "\U0001f4e6.jpg",
        "deep/er/still.jpg",
        "co:lon/x.jpg",
        "_DSC0001.JPG",
        "_raw/y.jpg",
        "no_suffix",
    )
    files += [(f"name {name!a}", name, encoded(picture(100 + index)), "", _decoded()) for index, name in enumerate(odd)]
    return [Planted(*file) for file in files]


NOT_LANDED = {
    ".hidden.jpg": encoded(picture(200)),
    ".dot/inside.jpg": encoded(picture(201)),
    "_SUCCESS": b"",
    "half.jpg._COPYING_": encoded(picture(202)),
}
