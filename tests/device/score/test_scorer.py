"""The scorer's loop as a process: the result of each frame, and the model that scores it."""

import bundles
import pytest
from harness import until
from steps import images, lines, ready, shots

from device.score import scorer


def test_frames_are_sent_unscored_without_a_model(scoring):
    scoring.configure(model={"url": str(scoring.folder / "nowhere")}, feedback={"send": "none"})
    scoring.run("sync", check=False)
    shots(scoring, 30, 220)
    done = scoring.run("score", "--once")
    assert "no model here yet" in done.stderr
    assert lines(scoring) == [] and len(images(scoring)) == 2


def test_damaged_photograph_gets_error_others_are_scored(scoring):
    ready(scoring)
    folder = scoring.folder / "odd"
    folder.mkdir()
    whole = bundles.photo(200)
    (folder / "0.jpg").write_bytes(whole[:300] + b"\x00" * 200 + whole[-2:])
    (folder / "1.jpg").write_bytes(whole)
    scoring.configure(camera={"folder": str(folder), "loop": False})
    scoring.run("capture")
    scoring.run("score", "--once")
    bad, good = lines(scoring)
    assert "not an image" in bad["error"] and bad["label"] is None and good["label"] == "package"
    assert len(images(scoring)) == 2


def test_new_version_is_fetched_and_used_while_scoring(scoring):
    scoring.configure(capture={"interval_s": 0.02})
    score, capture = scoring.start("score"), scoring.start("capture")
    until(lambda: "has passed its probation" in scoring.journal("score"), "version 1 is confirmed")
    bundles.publish(scoring.models, scoring.place, "2", "other")
    until(lambda: "model 2 has passed its probation" in scoring.journal("score"), "version 2 is confirmed")
    scoring.stop(capture)
    until(lambda: not list((scoring.spool / "unscored").iterdir()), "all frames are scored")
    assert scoring.stop(score) == 0
    scored = lines(scoring)
    versions = [line["version"] for line in scored]
    assert versions == sorted(versions) and set(versions) == {"1", "2"} and not any(line["error"] for line in scored)
    assert {ack.key for ack in scoring.acks()} == set(images(scoring))


def test_frame_damaged_on_the_card_is_set_aside(scoring):
    """The damage comes after the start, whose recovery would find it."""
    ready(scoring)
    shots(scoring, 30, 220)
    damaged = min((scoring.spool / "unscored").iterdir())
    damaged.write_bytes(damaged.read_bytes()[:-1])
    scoring.run("score", "--once", driver="import device.spool.spool as s; s.Spool.recover = lambda self: []")
    assert len(lines(scoring)) == 1 and scoring.counters("score")["damaged"] == 1
    assert (scoring.spool / "dead" / damaged.name).exists()


@pytest.mark.parametrize("age_s, well", [(0.0, True), (0.9, True), (1.1, False)], ids=str)
def test_scorer_is_well_for_a_third_of_the_watchdogs_time(monkeypatch, age_s, well):
    monkeypatch.setenv("WATCHDOG_USEC", "3000000")
    made = object.__new__(scorer.Scorer)
    monkeypatch.setattr(scorer.time, "monotonic", lambda: 100.0)
    made.alive_at = 100.0 - age_s
    assert made.is_well() is well
    monkeypatch.delenv("WATCHDOG_USEC")
    assert made.is_well(), "without a watchdog"


def test_taken_at_is_the_iso_time_of_the_frames_name():
    assert scorer._taken_at("2026-03-02T140509.250Z_1a2b3c4d_000012_empty") == "2026-03-02T14:05:09.250Z"
