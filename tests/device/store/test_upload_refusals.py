"""Upload, if the store denies access or refuses frames."""

import pytest
from harness import reckon, until
from s3 import s3_error

pytestmark = pytest.mark.service


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((400, s3_error("ExpiredToken", "The provided token has expired.")), id="S3 expired, a 400"),
        pytest.param((403, s3_error("AccessDenied")), id="403"),
        pytest.param((401, "who are you"), id="401"),
        pytest.param((403, s3_error("RequestTimeTooSkewed")), id="clock off"),
        pytest.param((404, s3_error("NoSuchBucket")), id="no bucket"),
        pytest.param((301, s3_error("PermanentRedirect")), id="wrong region"),
    ],
)
def test_denied_upload_pauses_and_reports(agent, bucket, proxy, answer):
    denied = [True]
    proxy.rule = lambda method, path, number: answer if denied[0] else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "5")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("DENIED") >= 2, "upload reports the denial, and tries again")
    assert len(proxy.requests) <= agent.journal("upload").count("DENIED") + 1, (
        "one request per pause, not one per frame"
    )
    status = agent.run("status", check=False)
    assert status.returncode == 1 and "upload is paused" in status.stdout
    denied[0] = False  # a person renews the credentials
    until(lambda: not agent.waiting(), "the spool runs empty")
    assert agent.stop(upload) == 0
    assert reckon(agent, bucket.objects()) == 5
    assert "the store takes frames again" in agent.journal("upload")
    assert "paused" not in agent.run("status", check=False).stdout


def test_refused_frame_goes_to_dead_without_delaying_others(agent, bucket, proxy):
    agent.run("capture", "--frames", "5")
    bad = agent.acks()[1].key
    proxy.rule = lambda method, path, number: (
        (400, s3_error("InvalidArgument")) if bad.rpartition("_")[2] in path else "pass"
    )
    agent.use_bucket(bucket, proxy.port)
    agent.configure(capture={"interval_s": 0.1})
    upload, capture = agent.start("upload"), agent.start("capture")
    until(lambda: "set aside" in agent.journal("upload"), "the refused frame is set aside")
    agent.stop(capture)
    until(lambda: not agent.waiting(), "the others arrive")
    agent.stop(upload)
    stored = bucket.objects()
    assert set(stored) == {ack.key for ack in agent.acks()} - {bad}
    names = sorted(path.name for path in (agent.spool / "dead").iterdir())
    assert len(names) == 2 and names[1] == names[0] + ".reason"
    assert "while others were accepted" in (agent.spool / "dead" / names[1]).read_text()


def test_too_large_frame_goes_to_dead_at_once(agent, bucket, proxy):
    proxy.rule = lambda method, path, number: (413, s3_error("EntityTooLarge")) if number == 1 else "pass"
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "3")
    agent.run("upload", "--once")
    assert len(bucket.objects()) == 2 and len(list((agent.spool / "dead").glob("*.jpg"))) == 1


def test_refusal_of_all_frames_buries_none(agent, bucket, proxy):
    """An unknown code for every frame means a wrong set-up, and dead/ stays empty."""
    proxy.rule = lambda *_: (400, s3_error("SomethingNew"))
    agent.use_bucket(bucket, proxy.port)
    agent.run("capture", "--frames", "20")
    upload = agent.start("upload")
    until(lambda: agent.journal("upload").count("refusals in a row") >= 2, "upload pauses")
    agent.stop(upload)
    assert len(agent.waiting()) == 20
    proxy.rule = lambda *_: "pass"
    agent.run("upload", "--once")
    assert reckon(agent, bucket.objects()) == 20


def test_other_object_at_key_is_not_overwritten(agent, bucket):
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", "3")
    taken = agent.acks()[0].key
    bucket.put(taken, b"somebody else's")
    agent.run("upload", "--once")
    assert bucket.objects()[taken] == b"somebody else's"
    reasons = [path.read_text() for path in (agent.spool / "dead").glob("*.reason")]
    assert len(reasons) == 1 and "another object of 15 bytes" in reasons[0]
