"""kill -9 at random moments of a model swap: a working model is in use, and every frame has one line and one image.

LAKEVISION_SOAK=1 kills 200 times, the suite a seeded share.
"""

import collections
import random
import time

import bundles
import pytest
from harness import SOAK, kill_all, until
from steps import denied, images, lines, ready

from device import config
from device.model import edge_model, selector, slots
from device.spool import records

pytestmark = [pytest.mark.chain, pytest.mark.kill]

KILLS = 200 if SOAK else 10


def swap_step(agent, version):
    """The step of the swap to this version that a kill interrupted, according to the files."""
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


def test_killed_swap_leaves_working_model_and_loses_no_frame(scoring, models):
    """After each kill, a working model is in use. In the end every frame has one line and one image."""
    ready(scoring)
    scoring.configure(capture={"interval_s": 0.03}, model={"crashes": 10**6, "probation": 3, "interval_s": 0.1})
    settings = config.load(scoring.config)
    kinds, rng, steps_hit = {"1": "good"}, random.Random(9), collections.Counter()
    dark = bundles.photo(30)
    capture = scoring.start("capture")
    for kill in range(KILLS):
        version = str(kill + 2)
        kinds[version] = "other" if kill % 2 == 0 else "good"
        bundles.publish(models, scoring.place, version, kinds[version], variants=("float32",))
        score = scoring.start("score")
        if kill % 4:  # otherwise the kill comes during the start
            until(lambda version=version: swap_step(scoring, version) != "not begun", "the swap has begun")
        time.sleep(rng.uniform(0, 1.5))
        kill_all(score)
        steps_hit[swap_step(scoring, version)] += 1
        chosen = selector.Selector(settings, lambda *_: None)
        chosen.start()
        model = chosen.model
        assert model, f"kill {kill}: no model works any more"
        label = edge_model.decide(edge_model.probabilities(model, dark), model.classes, model.threshold)
        assert label == ("empty" if kinds[model.version] == "good" else "package")
    score = scoring.start("score")
    before = len(lines(scoring))
    until(lambda: len(lines(scoring)) > before, "it scores")  # earlier, a SIGTERM may meet Python's own start
    assert scoring.stop(capture) == 0
    until(lambda: not list((scoring.spool / "unscored").glob("*.jpg")), "the rest is scored")
    assert scoring.stop(score) == 0 and "Traceback" not in scoring.journal("score")
    scored = lines(scoring)
    promised = {ack.key for ack in scoring.acks()}
    assert {line["image"] for line in scored} == promised == set(images(scoring))
    assert not any(line["error"] for line in scored) and not denied(scoring)
    versions = {line["version"] for line in scored}
    print(
        f"{KILLS} kills, {dict(steps_hit)}: {len(scored)} frames, each with one line and one image, "
        f"scored by {len(versions)} versions"
    )
    assert len(versions) > 1
