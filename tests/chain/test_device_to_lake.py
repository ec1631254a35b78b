"""Uploads of the real agent become rows.

The agent uploads to a folder or an S3 server; the code of notebook 01 lands the files, and ingest reads them.
"""

import harness
import pytest
import s3

from lakevision.ingest import capture, labels, stream

pytestmark = [pytest.mark.spark, pytest.mark.service]


@pytest.fixture(params=["a local folder", "an S3 server"])
def uploaded(request, tmp_path, monkeypatch):
    """(address of a landing zone that the agent filled, list of harness.Ack)."""
    for key, value in {
        "AWS_ACCESS_KEY_ID": "AKIATEST",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(key, value)
    photographs = tmp_path / "photographs"
    photographs.mkdir()
    harness.make_photos(photographs)
    agent = harness.Agent(tmp_path, photographs)
    if request.param == "a local folder":
        yield harness.fill_landing(agent, tmp_path / "uploaded", frames=8)
    else:
        with s3.moto_server() as port:
            monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
            bucket = s3.Bucket.make(port, "lake")
            agent.use_bucket(bucket)
            agent.configure(device={"label": "package"})
            agent.run("capture", "--frames", "5")
            agent.run("upload", "--once")
            yield f"s3://{bucket.name}/landing", agent.acks()
    agent.stop_all()


def test_uploads_of_the_agent_become_rows(uploaded, lakehouse):
    address, acks = uploaded
    spark, make = lakehouse
    cfg, places = make("capture.source=folder", f"capture.path={address}")
    assert capture.land(cfg, places).new == len(acks)
    done = stream.ingest(spark, cfg, places)
    assert (done.images, done.rejected) == (len(acks), 0)
    for row in (
        spark.table(places.table("images")).join(labels.latest(spark, places).select("path", "label"), "path").collect()
    ):
        name = row.path.rsplit("/", 1)[1]
        assert row.captured_from == "exif" and f"device={row.device}/" in row.path
        assert row.captured_at.strftime("%Y-%m-%dT%H%M%S.%f")[:-3] == name.split("Z_")[0]
        assert row.label == name.removesuffix(".jpg").rsplit("_", 1)[1] and row.label in ("empty", "package")
        assert row.exif["BodySerialNumber"] == row.device and "boot" in row.exif["UserComment"]
