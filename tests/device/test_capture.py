"""What arrives is what ingest expects: names, folders, labels, EXIF; from a local folder and from an S3 server alike."""

import io
import random
import re
from datetime import UTC, datetime
from pathlib import Path

import harness
import pytest
from PIL import ExifTags, Image

from device import exif
from device.capture import WRITERS
from device.model import transform

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


def test_local_folder(uploaded_landing):
    landing, acks = uploaded_landing
    stored = harness.read_folder(landing)
    labels = [look(key, data, "porch-1") for key, data in sorted(stored.items())]
    assert set(stored) == {ack.key for ack in acks} and len(labels) == 12
    assert set(labels) == {"package", "empty"} and labels.count("package") == 6
    gps = Image.open(io.BytesIO(next(iter(stored.values())))).getexif().get_ifd(ExifTags.IFD.GPSInfo)
    assert [float(part) for part in gps[ExifTags.GPS.GPSLatitude]] == pytest.approx([48, 12, 29.52], abs=0.01)


def test_s3(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", "4")
    agent.run("upload", "--once")
    stored = bucket.objects()
    assert len(stored) == 4 and [look(key, data, "porch-7") for key, data in stored.items()] == [None] * 4


def test_a_label_set_by_hand_is_the_last_field(agent):
    agent.configure(device={"label": "package"})
    agent.run("capture", "--once")
    assert agent.acks()[0].key.endswith("_package.jpg")


def test_replay_of_named_photographs_keeps_their_labels(agent, photos, tmp_path):
    """The original accelerator's names end with the class."""
    named = tmp_path / "named"
    named.mkdir()
    for index, label in enumerate(("0", "1", "0")):
        (named / f"2021-07-13T0{index}%3A55%3A04_rpi_sensor_3_front_{label}.jpg").write_bytes(
            (photos / "photo_0.jpg").read_bytes()
        )
    agent.configure(camera={"folder": str(named), "labelled": True, "loop": False})
    agent.run("capture")
    assert [ack.key.rpartition("_")[2] for ack in sorted(agent.acks(), key=lambda ack: ack.key)] == [
        "0.jpg",
        "1.jpg",
        "0.jpg",
    ]


@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_rotation_is_undone_by_the_transform(agent, rotation):
    """A camera mounted turned: the model's pixels are those of the upright scene."""
    agent.configure(camera={"kind": "simulated", "size": [96, 96], "rotation": rotation})
    agent.run("capture", "--once")
    data = (agent.spool / "ready" / agent.waiting()[0]).read_bytes()
    sensor = Image.open(io.BytesIO(data)).convert("RGB")
    upright = sensor.rotate(-rotation, expand=True)
    assert transform.pixels(data, "decode|upright|rgb|resize(96)") == upright.tobytes()


def test_status_and_doctor(agent, bucket):
    agent.use_bucket(bucket)
    screen = agent.run("status", check=False)
    assert screen.returncode == 1 and "no frame yet" in screen.stdout and "not made yet" in screen.stdout
    agent.configure(capture={"interval_s": 0.1})
    capture, upload = agent.start("capture"), agent.start("upload")
    harness.until(lambda: "uploaded" in agent.journal("upload"), "an upload")
    harness.until(
        lambda: "last frame" in (screen := agent.run("status", check=False)).stdout and screen.returncode == 0,
        "all is well",
        30,
    )
    screen = agent.run("status")
    for word in (
        "porch-7",
        "clock",
        "camera folder",
        "capture   running",
        "upload    running",
        f"s3://{bucket.name}/landing",
        "of 2000 MB",
    ):
        assert word in screen.stdout
    assert len(screen.stdout.splitlines()) <= 24, "one screen"
    examined = agent.run("doctor", check=False).stdout
    assert (
        "ok    camera        in use by the running capture" in examined
        and "ok    store" in examined
        and "AWS_ACCESS_KEY_ID" in examined
    )
    assert agent.run("doctor", check=False).stdout.count("ok ") >= 6, "a second time too"
    agent.stop(capture)
    agent.stop(upload)
    stopped = agent.run("status", check=False)
    assert stopped.returncode == 1 and "capture is not running" in stopped.stdout


def test_doctors_checks_are_independent(agent, tmp_path):
    """All of it broken at once: each check still speaks, with a fix."""
    (tmp_path / "file").write_text("")
    agent.configure(camera={"folder": str(tmp_path / "nothing")}, spool={"path": str(tmp_path / "file" / "spool")})
    done = agent.run("doctor", check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 1 and {"camera", "spool_folder", "secrets", "store"} <= {
        line.split()[1] for line in lines
    }
    assert all("Fix:" in line for line in lines) and "Traceback" not in done.stdout + done.stderr


def test_dry_runs_change_nothing(agent, bucket):
    agent.use_bucket(bucket)
    assert "would store" in agent.run("capture", "--dry-run").stdout
    assert not agent.spool.exists()
    agent.run("capture", "--frames", "2")
    before = agent.waiting()
    assert agent.run("upload", "--dry-run").stdout.count("would send device=porch-7/") == 2
    assert agent.waiting() == before and bucket.objects() == {}


def test_once(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--once")
    agent.run("upload", "--once")
    assert len(bucket.objects()) == 1
    assert Path(agent.spool / "ready").exists()


def test_quota(agent):
    """Oldest first out, but for those being written at once; the quota holds, and the books balance."""
    agent.configure(spool={"max_mb": 0.1})
    agent.run("capture", "--frames", "60")
    sizes = [(agent.spool / "ready" / name).stat().st_size for name in agent.waiting()]
    assert sum(sizes) <= 100_000 and len(sizes) + agent.counters("capture")["dropped"] == 60
    kept = [int(name.partition("~")[0]) for name in agent.waiting()]
    assert kept == sorted(set(kept)) and kept[0] > 60 - len(kept) - WRITERS


@pytest.mark.parametrize("answers_lost", [False, True], ids=["", "answers lost"])
def test_upload_and_the_quota_at_once(agent, bucket, proxy, answers_lost):
    """A frame on its way is not dropped from under the upload: it's either stored, or counted as dropped, never both."""
    rng = random.Random(5)
    proxy.rule = lambda *_: "lost" if answers_lost and rng.random() < 0.1 else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.configure(spool={"max_mb": 0.1}, capture={"interval_s": 0.002})
    upload = agent.start("upload")
    # Status 75 is fine: when upload and the writers hold all that the small quota allows, it is the last frame that goes.
    assert agent.run("capture", "--frames", "600", check=False).returncode in (0, 75)
    harness.until(lambda: not agent.waiting(), "the spool runs empty")
    agent.stop(upload)
    stored = bucket.objects()
    harness.reckon(agent, stored, answers_lost)
    dropped = agent.counters("capture").get("dropped", 0)
    assert len(stored) + dropped >= 600 if answers_lost else len(stored) + dropped == 600
