"""Photographs in a bucket are replayed into the landing zone: a real S3 server on loopback."""

import io
import socket
import subprocess
import sys
import time

import pytest
from PIL import Image

from lakevision.ingest import capture


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


def test_a_bucket_is_replayed(s3, lakehouse, monkeypatch):
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
    from pathlib import Path

    assert (Path(places.landing) / "device=a/date=2026-03-02/x_empty.jpg").read_bytes() == out.getvalue()
