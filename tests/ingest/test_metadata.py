"""Metadata of a photograph: EXIF, capture time, device, position, resolution."""

import io
from datetime import UTC, datetime, timedelta, timezone

import pytest
from PIL import Image

from device import exif
from lakevision.ingest import metadata

MODIFIED = datetime(2026, 5, 1, tzinfo=UTC)


def jpeg(**tags):
    out = io.BytesIO()
    more = {"exif": exif.build(**tags)} if tags else {}
    Image.new("RGB", (40, 30), (10, 20, 30)).save(out, "JPEG", **more)
    return out.getvalue()


def test_exif_of_the_camera_is_read_back():
    taken = datetime(2026, 3, 2, 23, 15, 4, 250_000, tzinfo=timezone(timedelta(hours=2)))
    photo = metadata.describe(
        "x.jpg",
        jpeg(
            taken_at=taken,
            make="RaspberryPi",
            model="imx708",
            exposure_s=0.01,
            f_number=1.8,
            iso=200,
            position=(-33.856784, 151.215297, 4.5),
            serial="pi-7",
        ),
        MODIFIED,
    )
    assert (photo.captured_at, photo.captured_from, photo.device) == (taken.astimezone(UTC), "exif", "pi-7")
    assert float(photo.exif["ExposureTime"]) == pytest.approx(0.01) and photo.exif["ISOSpeedRatings"] == "200"
    degrees, minutes, seconds = map(float, photo.exif["GPSLatitude"].split())
    assert (
        degrees + minutes / 60 + seconds / 3600 == pytest.approx(33.856784, abs=1e-7)
        and photo.exif["GPSLatitudeRef"] == "S"
    )


@pytest.mark.parametrize(
    "name, expected, source",
    [
        pytest.param(
            "2021-07-13T03%3A04%3A54_rpi_sensor_3_front_0.jpg",
            datetime(2021, 7, 13, 3, 4, 54),
            "name",
            id="first accelerator, %3A",
        ),
        pytest.param(
            "2021-07-13T03:04:54_rpi_sensor_3_front_1.jpg",
            datetime(2021, 7, 13, 3, 4, 54),
            "name",
            id="first accelerator, colons",
        ),
        pytest.param(
            "2026-03-02T081502.123Z_porch-1_000007_empty.jpg",
            datetime(2026, 3, 2, 8, 15, 2, 123000),
            "name",
            id="capture agent",
        ),
        pytest.param("holiday.jpg", datetime(2026, 5, 1), "file", id="nothing known"),
        pytest.param("2021-13-45T99:04:54_x_0.jpg", datetime(2026, 5, 1), "file", id="not a date"),
    ],
)
def test_time_without_exif_comes_from_name_or_file(name, expected, source):
    photo = metadata.describe(name, jpeg(), MODIFIED)
    assert (photo.captured_at, photo.captured_from) == (expected.replace(tzinfo=UTC), source)


def test_time_without_offset_uses_the_time_zone_setting():
    photo = metadata.describe("2021-07-13T03:04:54_cam_0.jpg", jpeg(), MODIFIED, zone="Europe/Vienna")
    assert photo.captured_at == datetime(2021, 7, 13, 1, 4, 54, tzinfo=UTC)


def test_device_from_names_of_the_first_accelerator():
    assert metadata.device("2021-07-13T03%3A04%3A54_rpi_sensor_3_front_0.jpg", {}) == "rpi_sensor_3_front"


def test_photograph_with_broken_exif_is_kept():
    data = jpeg(taken_at=MODIFIED, make="a", model="b")
    broken = data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\xff\xff").replace(
        b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\0\0"
    )
    assert broken != data
    photo = metadata.describe("x.jpg", broken, MODIFIED)
    assert photo.error is None and photo.captured_from == "file"


def test_file_that_is_not_an_image_gives_an_error():
    assert "not an image" in metadata.describe("x.jpg", b"GET / HTTP/1.1", MODIFIED).error


@pytest.mark.parametrize(
    "text, expected",
    [
        pytest.param("0.01", 0.01, id="plain"),
        pytest.param("100 200", 100, id="the first"),
        pytest.param("nan", None, id="zero denominator"),
        pytest.param("inf", None, id="infinite"),
        pytest.param("", None, id="empty"),
        pytest.param(None, None, id="absent"),
        pytest.param("1/60", None, id="text"),
        pytest.param("-3", None, id="below"),
    ],
)
def test_first_number_of_a_text(text, expected):
    assert metadata.number(text, 0) == expected


def gps(latitude, longitude, north="N", east="E", **more):
    return {
        "GPSLatitude": latitude,
        "GPSLatitudeRef": north,
        "GPSLongitude": longitude,
        "GPSLongitudeRef": east,
        **more,
    }


@pytest.mark.parametrize(
    "tags, expected",
    [
        pytest.param(gps("48 12 29.52", "16 22 25.68"), (48.2082, 16.3738, None), id="degrees, minutes, seconds"),
        pytest.param(gps("33.856784", "151.215297", "S", "W"), (-33.856784, -151.215297, None), id="south, west"),
        pytest.param(
            gps("48 12.5 0", "16 0 0", GPSAltitude="171.5", GPSAltitudeRef="1"),
            (48 + 12.5 / 60, 16.0, -171.5),
            id="below the sea",
        ),
        pytest.param(gps("nan nan nan", "16 0 0"), (None, None, None), id="zero denominators"),
        pytest.param(gps("91 0 0", "16 0 0"), (None, None, None), id="beyond the pole"),
        pytest.param(gps("48 0 0", ""), (None, None, None), id="half a pair"),
        pytest.param(gps("-1 0 0", "16 0 0"), (None, None, None), id="negative"),
        pytest.param(gps("1 2 3 4", "16 0 0"), (None, None, None), id="too many"),
        pytest.param({}, (None, None, None), id="none"),
    ],
)
def test_position_from_gps_tags(tags, expected):
    found = metadata.position(tags)
    assert found == (tuple(value if value is None else pytest.approx(value) for value in expected))


TIME = "2026:03:02 08:15:04"


@pytest.mark.parametrize(
    "tags, path, expected, source",
    [
        pytest.param(
            {"DateTimeOriginal": TIME, "OffsetTimeOriginal": "+02:00", "SubsecTimeOriginal": "25"},
            "x",
            datetime(2026, 3, 2, 6, 15, 4, 250_000),
            "exif",
            id="original, offset, fraction",
        ),
        pytest.param(
            {"DateTimeOriginal": TIME},
            "x",
            datetime(2026, 3, 2, 7, 15, 4),
            "exif",
            id="no offset: the zone of the setting",
        ),
        pytest.param(
            {"DateTimeOriginal": "0000:00:00 00:00:00", "DateTimeDigitized": TIME, "OffsetTimeDigitized": "-05:30"},
            "x",
            datetime(2026, 3, 2, 13, 45, 4),
            "exif",
            id="digitised",
        ),
        pytest.param(
            {"DateTime": TIME, "OffsetTime": "+00:00"},
            "2020-01-01T000000Z_x",
            datetime(2026, 3, 2, 8, 15, 4),
            "exif",
            id="EXIF before the name",
        ),
        pytest.param(
            {"DateTimeOriginal": "1970:01:01 00:00:09"},
            "2020-01-01T000000Z_x",
            datetime(2020, 1, 1),
            "name",
            id="a clock never set",
        ),
        pytest.param(
            {"DateTimeOriginal": TIME, "OffsetTimeOriginal": "+99:99"}, "x", MODIFIED, "file", id="impossible offset"
        ),
        pytest.param(
            {"DateTimeOriginal": "yesterday"},
            "2020-07-01T00:00:00_x",
            datetime(2020, 6, 30, 22),
            "name",
            id="words, then a local name in summer",
        ),
        pytest.param(
            {"DateTimeOriginal": "9999:12:31 23:59:59"},
            "1815-06-18T120000Z_x",
            MODIFIED,
            "file",
            id="implausible years",
        ),
        pytest.param({}, "x", MODIFIED, "file", id="nothing"),
    ],
)
def test_capture_time_is_the_first_readable_time(tags, path, expected, source):
    taken, captured_from = metadata.captured_at(path, tags, MODIFIED, "Europe/Vienna")
    assert (taken, captured_from) == (expected.replace(tzinfo=UTC), source) and taken.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "tags, header, expected",
    [
        pytest.param({"XResolution": "300", "ResolutionUnit": "2"}, (72, 72), 300, id="per inch"),
        pytest.param({"XResolution": "100", "ResolutionUnit": "3"}, None, 254, id="per centimetre"),
        pytest.param({"XResolution": "nan"}, (72, 72), 72, id="zero denominator: the header"),
        pytest.param({}, None, None, id="none"),
    ],
)
def test_dpi_from_exif_or_header(tags, header, expected):
    image = Image.new("RGB", (2, 2))
    if header:
        image.info["dpi"] = header
    assert metadata._dpi(image, tags) == expected
