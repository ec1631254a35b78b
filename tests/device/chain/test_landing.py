"""From camera to landing zone: names, folders, labels and EXIF are those that ingest expects."""

import io
import re
from datetime import UTC, datetime

import harness
import pytest
from PIL import ExifTags, Image

from device import exif
from device.model import transform

pytestmark = pytest.mark.chain


KEY = re.compile(
    r"device=(?P<device>[\w.-]+)/date=(?P<date>\d{4}-\d\d-\d\d)/(?P<date2>\d{4}-\d\d-\d\d)T(?P<time>\d{6})\.(?P<ms>\d{3})Z_(?P<boot>[0-9a-f]{8})_(?P<sequence>\d{6,})(?:_(?P<label>[A-Za-z0-9.-]+))?\.jpg"
)


def look(key, data, device):
    """Checks one object on its own; returns its label."""
    match = KEY.fullmatch(key)
    assert match and ":" not in key and match["date"] == match["date2"] and match["device"] == device
    image = Image.open(io.BytesIO(data))
    tags = image.getexif()
    photo = tags.get_ifd(ExifTags.IFD.Exif)
    facts = exif.agent_facts(tags)
    assert facts["boot_id"].startswith(match["boot"]) and facts["sequence"] == int(match["sequence"])
    assert facts["clock_synced"] in (True, False, None)
    taken = datetime.strptime(
        f"{photo[ExifTags.Base.DateTimeOriginal]}.{photo[ExifTags.Base.SubsecTimeOriginal]}{photo[ExifTags.Base.OffsetTimeOriginal]}",
        "%Y:%m:%d %H:%M:%S.%f%z",
    )
    assert taken.astimezone(UTC).strftime("%Y-%m-%dT%H%M%S.%f")[:-3] == f"{match['date']}T{match['time']}.{match['ms']}"
    assert photo[ExifTags.Base.BodySerialNumber] == device
    assert transform.pixels(data, "decode|upright|rgb|resize(96)")
    return match["label"]


def test_local_folder_receives_valid_photographs(uploaded_landing):
    landing, acks = uploaded_landing
    stored = harness.read_folder(landing)
    labels = [look(key, data, "porch-1") for key, data in sorted(stored.items())]
    assert set(stored) == {ack.key for ack in acks} and len(labels) == 12
    assert set(labels) == {"package", "empty"} and labels.count("package") == 6
    gps = Image.open(io.BytesIO(next(iter(stored.values())))).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert [float(part) for part in gps[ExifTags.GPS.GPSLatitude]] == pytest.approx([48, 12, 29.52], abs=0.01)


@pytest.mark.service
def test_s3_receives_valid_photographs(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", "4")
    agent.run("upload", "--once")
    stored = bucket.objects()
    assert len(stored) == 4 and [look(key, data, "porch-7") for key, data in stored.items()] == [None] * 4
