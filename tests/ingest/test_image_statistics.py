"""Statistics equal numpy's on pictures of every kind; numbers and positions of EXIF texts; the ladder of capture times."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from device.simulation import porch
from lakevision.ingest import image_statistics, metadata

MODIFIED = datetime(2026, 5, 1, tzinfo=UTC)
NOISE = np.random.default_rng(3).integers(0, 256, (41, 67, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(porch.picture(porch.plan(1, size=(97, 63))[0]), id="a porch"),
        pytest.param(Image.fromarray(NOISE), id="noise"),
        pytest.param(Image.new("RGB", (5, 4), (0, 128, 255)), id="flat"),
        pytest.param(Image.fromarray(NOISE[:1, :2]), id="two pixels"),
        pytest.param(Image.fromarray(NOISE[:1, :1]), id="one pixel"),
        pytest.param(Image.fromarray((NOISE > 127).astype(np.uint8) * 255), id="black and white"),
    ],
)
def test_moments_equal_numpys(image):
    found, _ = image_statistics.of(image)
    arrays = [np.asarray(band).ravel() for band in (*image.split(), image.convert("L"))]
    for band, values in zip([*found["bands"], found["luma"]], arrays):
        counts = np.bincount(values, minlength=256)
        share = counts[counts > 0] / values.size
        assert (band["mean"], band["median"], band["stddev"]) == (
            pytest.approx(values.mean()),
            np.median(values),
            pytest.approx(values.std(), abs=1e-9),
        )
        assert (band["min"], band["max"]) == (values.min(), values.max()) and np.array_equal(band["histogram"], counts)
        assert band["entropy"] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9) and 0 <= band["entropy"] <= 8
    assert [band["band"] for band in found["bands"]] == ["R", "G", "B"]
    assert (found["brightness"], found["contrast"]) == (
        pytest.approx(arrays[-1].mean() / 255),
        pytest.approx(arrays[-1].std() / 255, abs=1e-9),
    )


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99, 1.0])
def test_percentile(share):
    values = np.sort(NOISE[..., 0].ravel())
    assert (
        image_statistics.percentile(np.bincount(values, minlength=256), share)
        == values[int(np.ceil(share * values.size)) - 1]
    )


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
def test_number(text, expected):
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
def test_position(tags, expected):
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
            {"DateTimeOriginal": TIME, "OffsetTimeOriginal": "+99:99"},
            "x",
            MODIFIED,
            "file",
            id="an offset that is none",
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
            id="years that no camera saw",
        ),
        pytest.param({}, "x", MODIFIED, "file", id="nothing"),
    ],
)
def test_captured_at(tags, path, expected, source):
    found, said = metadata.captured_at(path, tags, MODIFIED, "Europe/Vienna")
    assert (found, said) == (expected.replace(tzinfo=UTC), source) and found.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    "tags, header, expected",
    [
        pytest.param({"XResolution": "300", "ResolutionUnit": "2"}, (72, 72), 300, id="per inch"),
        pytest.param({"XResolution": "100", "ResolutionUnit": "3"}, None, 254, id="per centimetre"),
        pytest.param({"XResolution": "nan"}, (72, 72), 72, id="zero denominator: the header"),
        pytest.param({}, None, None, id="none"),
    ],
)
def test_dpi(tags, header, expected):
    image = Image.new("RGB", (2, 2))
    if header:
        image.info["dpi"] = header
    assert metadata._dpi(image, tags) == expected
