"""What a photograph says of itself: time, device, label, EXIF, statistics."""

import io
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from PIL import Image

from device import exif
from device.simulation import porch
from lakevision.ingest import image_statistics, metadata
from lakevision.ingest.labels import of_path

MODIFIED = datetime(2026, 5, 1, tzinfo=UTC)


def jpeg(**tags):
    out = io.BytesIO()
    more = {"exif": exif.build(**tags)} if tags else {}
    Image.new("RGB", (40, 30), (10, 20, 30)).save(out, "JPEG", **more)
    return out.getvalue()


def test_exif_written_by_the_camera_is_read_back():
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
            id="our device",
        ),
        pytest.param("holiday.jpg", datetime(2026, 5, 1), "file", id="nothing known"),
        pytest.param("2021-13-45T99:04:54_x_0.jpg", datetime(2026, 5, 1), "file", id="no date"),
    ],
)
def test_time_without_exif(name, expected, source):
    photo = metadata.describe(name, jpeg(), MODIFIED)
    assert (photo.captured_at, photo.captured_from) == (expected.replace(tzinfo=UTC), source)


def test_a_time_zone_for_times_that_carry_none():
    photo = metadata.describe("2021-07-13T03:04:54_cam_0.jpg", jpeg(), MODIFIED, zone="Europe/Vienna")
    assert photo.captured_at == datetime(2021, 7, 13, 1, 4, 54, tzinfo=UTC)


@pytest.mark.parametrize(
    "path, labels, expected",
    [
        pytest.param("cats/1.jpg", "auto", "cats", id="class folder"),
        pytest.param("train/cats/1_dog.jpg", "auto", "cats", id="folder before name"),
        pytest.param("2021_rpi_front_1.jpg", "auto", "1", id="last field of the name"),
        pytest.param("device=a/date=2026-03-02/x_empty.jpg", "auto", "empty", id="key folders are no classes"),
        pytest.param("cats/1_dog.jpg", "name", "dog", id="name by config"),
        pytest.param("plain.jpg", "auto", None, id="no label"),
        pytest.param(
            "device=p/date=2026-03-02/2026-03-02T081502.123Z_0a1b2c3d_000007_empty.jpg",
            "auto",
            "empty",
            id="the agent's label",
        ),
        pytest.param(
            "device=p/date=2026-03-02/2026-03-02T081502.123Z_0a1b2c3d_000007.jpg",
            "auto",
            None,
            id="the agent's sequence is no label",
        ),
        pytest.param("cats/1.jpg", "none", None, id="none by config"),
    ],
)
def test_label(path, labels, expected):
    assert of_path(path, labels)[0] == expected


def test_device_of_the_first_accelerators_names():
    assert metadata.device("2021-07-13T03%3A04%3A54_rpi_sensor_3_front_0.jpg", {}) == "rpi_sensor_3_front"


def test_statistics_equal_numpys():
    image = porch.picture(porch.plan(1, size=(97, 63))[0])
    array = np.asarray(image)
    found, _ = image_statistics.of(image)
    for index, band in enumerate(found["bands"]):
        values = array[..., index]
        assert band["mean"] == pytest.approx(values.mean()) and band["stddev"] == pytest.approx(values.std())
        assert (band["min"], band["max"]) == (values.min(), values.max())
        assert abs(band["median"] - np.median(values)) <= 0.5
    luma = np.asarray(image.convert("L"))
    share = np.bincount(luma.ravel()) / luma.size
    assert found["entropy"] == pytest.approx(-(share[share > 0] * np.log2(share[share > 0])).sum())
    assert found["brightness"] == pytest.approx(luma.mean() / 255)


def test_broken_exif_costs_no_photograph():
    data = jpeg(taken_at=MODIFIED, make="a", model="b")
    broken = data.replace(b"Exif\0\0MM\0*\0\0\0\x08", b"Exif\0\0MM\0*\0\0\xff\xff").replace(
        b"Exif\0\0II*\0\x08\0\0\0", b"Exif\0\0II*\0\xff\xff\0\0"
    )
    assert broken != data
    photo = metadata.describe("x.jpg", broken, MODIFIED)
    assert photo.error is None and photo.captured_from == "file"


def test_no_image_is_an_error_in_words():
    assert "not an image" in metadata.describe("x.jpg", b"GET / HTTP/1.1", MODIFIED).error
