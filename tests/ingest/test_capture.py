"""Photographs of folders and buckets (an S3 server on loopback) are replayed into the landing zone."""

import io
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from lake import paths, picture, put
from PIL import Image

from lakevision.ingest import capture, labels, stream

pytestmark = [pytest.mark.spark, pytest.mark.service]


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    for _ in range(300):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                break
        time.sleep(0.1)
    yield f"http://127.0.0.1:{port}"
    server.terminate()
    server.wait()


def test_photographs_of_a_bucket_land_once(s3, lakehouse, monkeypatch):
    import boto3

    for key, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3,
    }.items():
        monkeypatch.setenv(key, value)
    client = boto3.client("s3", region_name="us-east-1", endpoint_url=s3)
    client.create_bucket(Bucket="photos")
    out = io.BytesIO()
    Image.new("RGB", (32, 32), "red").save(out, "JPEG")
    for name in (
        "porch/device=a/date=2026-03-02/x_empty.jpg",
        "porch/device=a/date=2026-03-02/y_package.jpg",
        "porch/readme.txt",
        "elsewhere/z.jpg",
    ):
        client.put_object(Bucket="photos", Key=name, Body=out.getvalue())
    _, make = lakehouse
    cfg, places = make("capture.source=folder", "capture.path=s3://photos/porch")
    landed = capture.land(cfg, places)
    assert (landed.new, landed.skipped) == (2, ("readme.txt",))
    assert capture.land(cfg, places).new == 0
    assert (Path(places.landing) / "device=a/date=2026-03-02/x_empty.jpg").read_bytes() == out.getvalue()


def test_replay_encodes_names_that_spark_hides(lakehouse, tmp_path):
    spark, make = lakehouse
    source = tmp_path / "camera" / "dogs"
    source.mkdir(parents=True)
    for index, name in enumerate(("_DSC0001.JPG", "2021-07-13T03:04:54_x.jpg", "plain.jpg")):
        (source / name).write_bytes(picture(index))
    (source / "notes.txt").write_text("no photograph")
    cfg, places = make("capture.source=folder", f"capture.path={tmp_path / 'camera'}")
    landed = capture.land(cfg, places)
    assert (landed.new, landed.skipped) == (3, ("dogs/notes.txt",))
    # Other odd names land unchanged.
    names = {
        "with space_dog.jpg",
        "50%_dog.jpg",
        "2021-07-13T03%3A04%3A54_front_dog.jpg",
        "gr\u00f6\u00dfe_dog.jpg",
        "a+b&c_dog.jpg",
        "x[1]_dog.jpg",
        "deep=er/still_dog.jpg",
    }
    for index, name in enumerate(sorted(names)):
        put(places, name, picture(10 + index))
    assert stream.ingest(spark, cfg, places).images == 10
    assert set(paths(spark, places, "images")) == names | {
        "dogs/%5FDSC0001.JPG",
        "dogs/2021-07-13T03%3A04%3A54_x.jpg",
        "dogs/plain.jpg",
    }
    rows = labels.latest(spark, places).select("path", "label").collect()
    assert {row.path for row in rows if row.label == "dog"} == names and {row.label for row in rows} == {"dog", "dogs"}
    assert capture.land(cfg, places).new == 0


def test_source_without_photographs_names_the_setting(lakehouse):
    _, make = lakehouse
    with pytest.raises(FileNotFoundError, match="capture.path"):
        capture.land(*make("capture.source=folder", "capture.path=/nowhere/at/all"))
    with pytest.raises(ValueError, match="capture.path is empty"):
        capture.land(*make("capture.source=folder"))
    with pytest.raises(ValueError, match="no photographs"):
        capture.land(*make("capture.source=landing"))
