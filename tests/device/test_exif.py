"""EXIF is complete and standard: Pillow reads it back, and exiftool if it is installed."""

import io
import json
import shutil
import subprocess
from datetime import UTC, datetime

import pytest
from PIL import ExifTags, Image

from device import exif

AT = datetime(2026, 3, 2, 14, 5, 9, 123456, UTC)
BASE, IFD = ExifTags.Base, ExifTags.IFD
CAMERA = {
    "make": "RaspberryPi",
    "model": "RP_imx708",
    "exposure_s": 0.0125,
    "iso": 160,
    "position": (-33.8568, 151.2153, 4.0),
    "maker_note": "gain_r=1.50 gain_b=1.20",
    "orientation": 6,
    "exposure_held": True,
}


def jpeg(**more):
    out = io.BytesIO()
    Image.effect_noise((64, 48), 40).convert("RGB").save(out, "JPEG", **more)
    return out.getvalue()


def frame(at=AT, sequence=17, synced=True):
    block = exif.for_frame(at, "porch-1", "ab" * 16, sequence, synced, 321.5, **CAMERA)
    return b"".join(bytes(part) for part in exif.splice(jpeg(), block))


def test_block_holds_every_field():
    tags = Image.open(io.BytesIO(frame())).getexif()
    photo, gps = tags.get_ifd(IFD.Exif), tags.get_ifd(IFD.GPSInfo)
    assert (tags[BASE.Make], tags[BASE.Model], tags[BASE.Orientation], tags[BASE.Software]) == (
        "RaspberryPi",
        "RP_imx708",
        6,
        "lakevision",
    )
    assert photo[BASE.DateTimeOriginal] == "2026:03:02 14:05:09" and photo[BASE.OffsetTimeOriginal] == "+00:00"
    assert photo[BASE.SubsecTimeOriginal] == "123456" and photo[BASE.BodySerialNumber] == "porch-1"
    assert float(photo[BASE.ExposureTime]) == 0.0125 and photo[BASE.ISOSpeedRatings] == 160
    assert len(photo[BASE.ImageUniqueID]) == 32 and photo[BASE.ExposureMode] == 1
    assert gps[ExifTags.GPS.GPSLatitudeRef] == "S" and [
        float(part) for part in gps[ExifTags.GPS.GPSLatitude]
    ] == pytest.approx([33, 51, 24.48])
    assert exif.agent_facts(tags) == {"boot_id": "ab" * 16, "sequence": 17, "clock_synced": True, "uptime_s": 321.5}


@pytest.mark.parametrize("synced", [True, False, None])
def test_template_equals_fresh_build(synced):
    other = datetime(1999, 12, 31, 23, 59, 59, 7, UTC)
    frame(sequence=1)  # makes the template
    facts = exif._facts("cd" * 16, 123456, synced, 9.0)
    block = exif.for_frame(other, "porch-1", "cd" * 16, 123456, synced, 9.0, **CAMERA)
    unique = Image.Exif()
    unique.load(block)
    fresh = exif.build(
        other, serial="porch-1", image_id=unique.get_ifd(IFD.Exif)[BASE.ImageUniqueID], user_comment=facts, **CAMERA
    )
    assert block == fresh
    assert exif.agent_facts(unique)["clock_synced"] is synced


def test_ids_differ_by_device_boot_and_sequence():
    def unique(device, boot, sequence):
        tags = Image.Exif()
        tags.load(exif.for_frame(AT, device, boot, sequence, True, 1.0, make="m", model="x"))
        return tags.get_ifd(IFD.Exif)[BASE.ImageUniqueID]

    assert len({unique(d, b, s) for d in ("a", "b") for b in ("0" * 32, "1" * 32) for s in (1, 2)}) == 8


def test_splice_replaces_block_and_keeps_pixels():
    before = jpeg(exif=exif.build(AT, "Old", "Old"))
    after = b"".join(bytes(part) for part in exif.splice(before, exif.build(AT, "New", "New")))
    assert Image.open(io.BytesIO(after)).tobytes() == Image.open(io.BytesIO(before)).tobytes()
    assert Image.open(io.BytesIO(after)).getexif()[BASE.Make] == "New" and b"Old" not in after
    assert after.count(b"Exif\0\0") == 1 and b"JFIF" in after


@pytest.mark.parametrize(
    "data",
    [b"", b"\xff\xd8", b"PNG...", b"\xff\xd8\xff\xe0\xff\xff12"],
    ids=["empty", "start only", "not a JPEG", "cut in a header"],
)
def test_splice_refuses_bytes_that_are_no_jpeg(data):
    with pytest.raises(ValueError, match="not a JPEG"):
        exif.splice(data, b"Exif\0\0")


def test_foreign_comment_holds_no_facts():
    tags = Image.Exif()
    tags.load(exif.build(AT, "m", "x", user_comment="a=1 lovely day"))
    assert exif.agent_facts(tags) == {} and exif.agent_facts(Image.Exif()) == {}


def test_exiftool_reads_same_values(tmp_path):
    if not shutil.which("exiftool"):
        pytest.skip("exiftool is not installed (apt install libimage-exiftool-perl)")
    (tmp_path / "a.jpg").write_bytes(frame())
    read = json.loads(
        subprocess.run(
            ["exiftool", "-j", "-n", "-validate", "-warning", str(tmp_path / "a.jpg")], capture_output=True, text=True
        ).stdout
    )[0]
    assert read["DateTimeOriginal"] == "2026:03:02 14:05:09" and read["GPSLatitude"] == pytest.approx(-33.8568)
    assert read["SerialNumber"] == "porch-1" and "sequence=0000000017" in read["UserComment"]
