"""The status screen."""

import bundles
import harness
import pytest
from steps import shots


@pytest.mark.service
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


def test_status_shows_scorer_and_its_model(scoring):
    scoring.run("sync")
    shots(scoring, 30, 220)
    scoring.run("score", "--once")
    screen = scoring.run("status", check=False).stdout
    for words in ("last package (", "scored 2, unscored 0, errors 0, images home 2", "0 frames wait"):
        assert words in screen
    assert "model     version 1 (" in screen and "champion is version 1, from" in screen
    assert "score is not running: sudo systemctl start lakevision-score" in screen


def test_status_warns_of_denied_version_only_if_wanted(scoring):
    scoring.run("sync")
    scoring.run("score", "--once")
    bundles.publish(scoring.models, scoring.place, "2", "other", schema_version=9)
    scoring.run("sync", check=False)
    screen = scoring.run("status", check=False).stdout
    assert "sync, 0 times" not in screen and "LOOK      version 2 is denied" not in screen
    scoring.run("sync")
    screen = scoring.run("status", check=False).stdout
    assert "LOOK      version 2 is denied on this device" in screen
    assert "score is not running: sudo systemctl start lakevision-score" in screen


def test_status_without_a_model_warns(scoring):
    scoring.configure(model={"url": str(scoring.folder / "nowhere")})
    scoring.run("sync", check=False)
    screen = scoring.run("status", check=False).stdout
    assert "LOOK      there is no model that works" in screen and "LOOK      sync, 1 times in a row" in screen
