"""python -m device score as real processes: what is scored, by which model, and what comes of a frame."""

import hashlib
import json
import re
import sys

import bundles
import harness
import pytest
from harness import ROOT, until
from steps import doctor, images, lines, ready, shots


def test_frames_are_scored_and_come_home(scoring):
    ready(scoring)
    shots(scoring, 30, 220, 60, 200)
    assert scoring.waiting() == [], "capture's frames wait for score, upload does not see them"
    scoring.run("score", "--once")
    assert len(images_waiting(scoring)) == 4
    got = lines(scoring)
    assert [line["label"] for line in got] == ["empty", "package", "empty", "package"]
    acks = {ack.key: ack for ack in scoring.acks()}
    stored = harness.read_folder(scoring.folder / "landing")
    from device.model import edge_model

    slot = scoring.model / json.loads((scoring.model / "active.json").read_text())["slot"]
    for line in got:
        assert acks[line["image"]].sha256 == line["sha256"] == hashlib.sha256(stored[line["image"]]).hexdigest()
        scores = edge_model.probabilities(edge_model.load(str(slot), line["variant"]), stored[line["image"]])
        assert line["scores"] == [round(score, 6) for score in scores]
        assert (line["version"], line["sent"], line["error"], line["device"]) == ("1", "image", "", "porch-7")
        assert line["latency_ms"] > 0 and 0 < line["brightness"] < 1 and line["taken_at"][:16] == line["scored_at"][:16]
    assert images(scoring) == sorted(acks)
    assert not list((scoring.spool / "unscored").iterdir()) and not list((scoring.spool / "dead").iterdir())


def images_waiting(agent):
    return [name for name in agent.waiting() if name.endswith(".jpg")]


def test_without_a_model_every_frame_comes_home_unscored(scoring):
    scoring.configure(model={"url": str(scoring.folder / "nowhere")}, feedback={"send": "none"})
    scoring.run("sync", check=False)
    shots(scoring, 30, 220)
    done = scoring.run("score", "--once")
    assert "no model here yet" in done.stderr
    assert lines(scoring) == [] and len(images(scoring)) == 2


def test_a_damaged_photograph_costs_itself_only(scoring):
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


def test_a_new_version_is_fetched_and_taken_while_scoring_goes_on(scoring):
    scoring.configure(capture={"interval_s": 0.02})
    score, capture = scoring.start("score"), scoring.start("capture")
    until(lambda: "has passed its probation" in scoring.journal("score"), "version 1 is confirmed")
    bundles.publish(scoring.models, scoring.place, "2", "other")
    until(lambda: "model 2 has passed its probation" in scoring.journal("score"), "version 2 is confirmed")
    scoring.stop(capture)
    until(lambda: not list((scoring.spool / "unscored").iterdir()), "all frames are scored")
    assert scoring.stop(score) == 0
    got = [line for line in lines(scoring)]
    versions = [line["version"] for line in got]
    assert versions == sorted(versions) and set(versions) == {"1", "2"} and not any(line["error"] for line in got)
    assert {ack.key for ack in scoring.acks()} == set(images(scoring))


def test_nothing_is_fetched_when_nothing_is_new(scoring):
    ready(scoring)
    slot = scoring.model / "a"
    before = {path: path.stat().st_mtime_ns for path in slot.rglob("*")}
    (scoring.place / "versions" / "1" / "manifest.json").unlink()
    assert "nothing new" in scoring.run("sync").stdout
    assert {path: path.stat().st_mtime_ns for path in slot.rglob("*")} == before


def test_scoring_switched_off_leaves_no_frame_behind(scoring):
    ready(scoring)
    shots(scoring, 30, 220)
    scoring.configure(score={"enabled": False})
    scoring.run("capture")
    scoring.run("upload", "--once")
    assert len(images(scoring)) == 4


FORBIDDEN = ("tensorflow", "pandas", "mlflow", "boto3", "keras", "pyarrow", "pyspark", "yaml", "obstore")


def test_what_is_loaded_and_how_much_memory_it_takes(scoring):
    ready(scoring)
    shots(scoring, *range(40, 200, 4))
    watch = (
        "import atexit; atexit.register(lambda: open({!r}, 'w').write('\\n'.join(sys.modules) + '\\n' + "
        "next(line for line in open('/proc/self/status') if line.startswith('VmHWM'))))"
    ).format(str(scoring.folder / "modules"))
    scoring.run("score", "--once", driver=watch)
    *loaded, peak = (scoring.folder / "modules").read_text().strip().splitlines()
    assert not {name.partition(".")[0] for name in loaded} & set(FORBIDDEN)
    megabytes = int(peak.split()[1]) * 1024 / 1e6
    print(f"peak resident memory of score: {megabytes:.0f} MB")
    assert megabytes < 120


@pytest.mark.parametrize(
    "name",
    [
        "act",
        "bench",
        "feedback",
        "golden",
        "model",
        "mqtt",
        "pilot",
        "results",
        "score",
        "source",
        "swap",
        "sync",
        "transform",
    ],
)
def test_the_source_imports_nothing_else(name):
    text = (ROOT / "device" / f"{name}.py").read_text()
    known = {"PIL", "device", "numpy", "ai_edge_litert", "obstore", "gpiozero", *sys.stdlib_module_names}
    assert set(re.findall(r"^\s*(?:from|import) ([a-zA-Z_]\w*)", text, re.MULTILINE)) <= known
    assert not re.findall(r"^(?:from|import) (?:numpy|ai_edge_litert|obstore|gpiozero)", text, re.MULTILINE), (
        "what is heavy, or may be absent, at import"
    )


def test_bench_prints_each_variant_and_the_fastest_is_in_use(scoring):
    bundles.publish(scoring.models, scoring.place, "2", variants=("float32", "float16", "int8"))
    record = ready(scoring, "2")
    printed = scoring.run("bench").stdout
    card = json.loads((scoring.model / record["slot"] / "checked.json").read_text())
    assert (
        card["variant"] == min(card["table"], key=lambda variant: card["table"][variant]["p50_ms"]) == record["variant"]
    )
    rows = {row.split()[0]: row for row in printed.splitlines()[2:-1]}
    assert (
        set(rows) == {"float32", "float16", "int8"}
        and "in use" in rows[record["variant"]]
        and printed.count("in use") == 1
    )
    assert {variant: figures["tolerance"] for variant, figures in card["table"].items()} == {
        "float32": 0.001,
        "float16": 0.02,
        "int8": 0.02,
    }
    for figures in card["table"].values():
        assert (
            0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
            and 20 < figures["memory_mb"] < 200
            and figures["frames"] >= 40
        )
    assert scoring.run("bench", "--again").stdout != printed


def test_bench_without_a_model(scoring):
    done = scoring.run("bench", check=False)
    assert done.returncode == 1 and "python -m device sync" in done.stderr


def test_without_litert_it_says_so(scoring):
    done = scoring.run("score", "--once", check=False, driver="sys.modules['ai_edge_litert.interpreter'] = None")
    assert done.returncode == 69 and "requirements-score.txt" in done.stderr and "Traceback" not in done.stderr


def test_switched_off_it_says_so(agent):
    done = agent.run("score", check=False)
    assert done.returncode == 78 and "score.enabled" in done.stderr


# ---- status and doctor


def test_status_tells_of_the_scorer_and_its_model(scoring):
    scoring.run("sync")
    shots(scoring, 30, 220)
    scoring.run("score", "--once")
    shown = scoring.run("status", check=False).stdout
    assert (
        "last package (" in shown
        and "scored 2, unscored 0, errors 0, images home 2" in shown
        and "0 frames wait" in shown
    )
    assert "model     version 1 (" in shown and "champion is version 1, from" in shown
    bundles.publish(scoring.models, scoring.place, "2", "other", schema_version=9)
    scoring.run("sync", check=False)
    shown = scoring.run("status", check=False).stdout
    assert "sync, 0 times" not in shown and "LOOK      version 2 is denied" not in shown, (
        "only what is wanted and denied is worth a look"
    )
    scoring.run("sync")
    assert "LOOK      version 2 is denied on this device" in scoring.run("status", check=False).stdout
    assert "score is not running: sudo systemctl start lakevision-score" in shown


def test_status_without_a_model_says_so(scoring):
    scoring.configure(model={"url": str(scoring.folder / "nowhere")})
    scoring.run("sync", check=False)
    shown = scoring.run("status", check=False).stdout
    assert "LOOK      there is no model that works" in shown and "LOOK      sync, 1 times in a row" in shown


def test_doctor_knows_the_scorer(scoring):
    ready(scoring)
    scoring.configure(act={"command": ["/nowhere/ring"]})
    said = doctor(scoring)
    assert len(said) == 11 and said["scorer"].startswith("ok") and "as at home" in said["scorer"]
    assert said["next_model"].startswith("ok") and "champion is version 1" in said["next_model"]
    assert said["actions"].startswith("FAIL") and "/nowhere/ring" in said["actions"]
    path = scoring.model / "a" / "float32.tflite"
    path.write_bytes(b"rot" + path.read_bytes()[3:])
    int8 = scoring.model / "a" / "int8.tflite"
    int8.write_bytes(b"rot" + int8.read_bytes()[3:])
    scoring.configure(model={"url": str(scoring.folder / "nowhere")}, act={"command": [], "gpio": "GPIO17"})
    said = doctor(scoring)
    assert said["scorer"].startswith("FAIL") and "fetch the model again" in said["scorer"]
    assert said["next_model"].startswith("FAIL") and "gpiozero" in said["actions"]
    scoring.configure(score={"enabled": False})
    assert "scorer" not in doctor(scoring)


# ---- settings


@pytest.mark.parametrize(
    "section, values, words",
    [
        ("model", {"url": "mlflow+ftp://host"}, "model.url"),
        ("model", {"url": "databricks://host/c/s", "name": "a.b.c"}, "model.url"),
        ("model", {"url": "mlflow+https://user:pa55word@host"}, "credentials belong elsewhere"),
        ("model", {"url": "mlflow+https://host", "name": ""}, "model.name"),
        ("model", {"alias": "../x"}, "model.alias"),
        ("feedback", {"send": "some"}, "all, chosen, none"),
        ("feedback", {"margin": 1.5}, "0 to 1"),
        ("act", {"mqtt": "mqtt://user:pa55word@broker/t"}, "credentials belong elsewhere"),
        ("act", {"webhook": "ring.example"}, "http://host"),
        ("act", {"command": [1]}, "list of words"),
        ("score", {"threads": 0}, "more than 0"),
    ],
    ids=str,
)
def test_settings_that_cannot_be(agent, section, values, words):
    agent.configure(**{section: values})
    done = agent.run("score", "--once", check=False)
    assert done.returncode == 78 and words in done.stderr and "pa55word" not in done.stderr


@pytest.mark.parametrize(
    "url", ["/edge", "s3://b/edge", "volume://h/c/s/v/edge", "mlflow+https://h:5000", "databricks://h/c/s/v/edge"]
)
def test_places_that_are_understood(agent, url):
    from device import config

    agent.configure(model={"url": url})
    assert config.load(agent.config).model.url == url
