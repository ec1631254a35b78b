"""The status screen."""

import harness
import pytest

pytestmark = pytest.mark.service


def test_status_and_doctor_show_running_agent(agent, bucket):
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
