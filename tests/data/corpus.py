"""Planted files, drawn by code, each with the expected outcome.

Devices, people and broken cards put such files into a landing zone.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from drawn import (
    TAKEN,
    apng_of_too_many_frames,
    broken_exif,
    encoded,
    frames,
    gps,
    huge_exif,
    picture,
    png_claiming,
    with_exif,
    with_orientation,
    with_zero_denominators,
)
from PIL import Image
from PIL.TiffImagePlugin import IFDRational as R

from device import exif


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
    expected: dict[str, Any] = field(default_factory=dict)


def _decoded(mode="RGB", format="JPEG", size=(64, 48), **more):
    return {"mode": mode, "format": format, "width": size[0], "height": size[1], **more}


def corpus() -> list[Planted]:  # 194 lines: a table of files, easier to read in one piece
    """All planted files; names and bytes are unique."""
    grey, deep = picture(3).convert("L"), Image.new("I;16", (64, 48))
    deep.putdata([index * 21 for index in range(64 * 48)])
    alpha = picture(5)
    alpha.putalpha(picture(6).convert("L"))
    zero = (R(48, 9973), R(9, 9973), R(1, 9973))
    jpeg, png = encoded(picture(1, (200, 150))), encoded(picture(1, (200, 150)), "PNG")
    files: list[tuple[Any, ...]] = [
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
        ("animated GIF", "moving.gif", frames("GIF"), "", _decoded("P", "GIF", frames=3)),
        ("animated WebP", "moving.webp", frames("WEBP"), "", _decoded("RGB", "WEBP", frames=3)),
        ("APNG", "moving.png", frames("PNG"), "", _decoded("RGB", "PNG", frames=3)),
        (
            "APNG of 2**31 frames",
            "endless.png",
            apng_of_too_many_frames(),
            "",
            _decoded("RGB", "PNG", frames=2**31 - 1),
        ),
        (
            "multi-page TIFF",
            "pages.tif",
            encoded(picture(92), "TIFF", save_all=True, append_images=[picture(1, (9, 9))]),
            "",
            _decoded(format="TIFF", frames=2),
        ),
        ("MPO", "stereo.jpg", frames("MPO"), "", _decoded(format="MPO", frames=3)),
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
        ("broken EXIF", "broken_exif.jpg", broken_exif(), "", _decoded(captured_from="file")),
        (
            "GPS with zero denominators",
            "nowhere.jpg",
            with_zero_denominators(with_exif(gps(zero, zero), 30)),
            "",
            _decoded(latitude=None, longitude=None),
        ),
        (
            "GPS off the globe",
            "moon.jpg",
            with_exif(gps((R(95), R(0), R(0)), (R(10), R(0), R(0))), 31),
            "",
            _decoded(latitude=None, longitude=None),
        ),
        ("huge EXIF", "wordy.jpg", huge_exif(), "", _decoded()),
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
        (f"EXIF orientation {value}", f"turned_{value}.jpg", with_orientation(value), "", _decoded(orientation=value))
        for value in range(1, 9)
    ]
    files += [("EXIF orientation 9", "turned_9.jpg", with_orientation(9), "", _decoded(orientation=None))]
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
