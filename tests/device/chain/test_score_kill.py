"""kill -9 in the middle of a swap, at random moments: always a model that works, and every frame has one line and one image.

LAKEVISION_SOAK=1 kills 200 times, the suite a seeded share.
"""

import collections
import random
import time

import bundles
from harness import SOAK, kill_all, until
from steps import denied, images, lines, ready

from device import config
from device.model import edge_model, selector, slots
from device.spool import records

KILLS = 200 if SOAK else 10


def where(agent, version):
    """In which step of the swap to this version a kill struck, as the files tell."""
    record = records.read(agent.model / "active.json")
    spare = agent.model / slots.spare(record)
    if record.get("version") == version:
        return "on probation" if record["fallback"] else "confirmed"
    if slots.checked(agent.model, spare.name).get("version") == version:
        return "checked, not taken"
    if records.read(spare / "fetching.json").get("version") != version:
        return "not begun"
    manifest = records.read(spare / "manifest.json")
    files = [*manifest.get("variants", {}).values(), *manifest.get("golden", [])]
    return "being checked" if files and all((spare / entry["file"]).exists() for entry in files) else "being fetched"


def test_killed_in_the_middle_of_a_swap(scoring, models):
    """After each kill a model that works is in use, and in the end every frame has one line, one image and none is lost."""
    ready(scoring)
    scoring.configure(capture={"interval_s": 0.03}, model={"crashes": 10**6, "probation": 3, "interval_s": 0.1})
    settings = config.load(scoring.config)
    kinds, rng, struck = {"1": "good"}, random.Random(9), collections.Counter()
    dark = bundles.photo(30)
    capture = scoring.start("capture")
    for kill in range(KILLS):
        version = str(kill + 2)
        kinds[version] = "other" if kill % 2 == 0 else "good"
        bundles.publish(models, scoring.place, version, kinds[version], variants=("float32",))
        score = scoring.start("score")
        if kill % 4:  # else it dies while it starts
            until(lambda: where(scoring, version) != "not begun", "the swap has begun")
        time.sleep(rng.uniform(0, 1.5))
        kill_all(score)
        struck[where(scoring, version)] += 1
        found = selector.Pilot(settings, lambda *_: None)
        found.start()
        assert found.model, f"kill {kill}: no model works any more"
        label = edge_model.decide(
            edge_model.probabilities(found.model, dark), found.model.classes, found.model.threshold
        )
        assert label == ("empty" if kinds[found.model.version] == "good" else "package")
    score = scoring.start("score")
    told = len(lines(scoring))
    until(lambda: len(lines(scoring)) > told, "it scores")  # before that, a SIGTERM may meet Python's own start
    assert scoring.stop(capture) == 0
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "the rest is scored")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    got = lines(scoring)
    kept = {ack.key for ack in scoring.acks()}
    assert {line["image"] for line in got} == kept == set(images(scoring)) and not any(line["error"] for line in got)
    assert not denied(scoring)
    seen = {line["version"] for line in got}
    print(
        f"{KILLS} kills, {dict(struck)}: {len(got)} frames, each with one line and one image; {len(seen)} versions scored"
    )
    assert len(seen) > 1
