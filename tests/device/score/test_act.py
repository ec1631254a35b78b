"""A change of the label leads to an action: once, by each way, after the hold-off, and never at the cost of scoring."""

import json
import time

import pytest
from broker import Broker
from harness import until
from servers import Server
from steps import lines, ready, shots

from device.score import act, mqtt


def settings(**changes):
    values = {
        "label": "package",
        "hold_off_s": 0.0,
        "timeout_s": 1.0,
        "command": [],
        "gpio": "",
        "mqtt": "",
        "webhook": "",
        **changes,
    }
    return type("Act", (), values)


def line(label, number=0):
    return {
        "label": label,
        "device": "porch-7",
        "image": f"device=porch-7/{number}.jpg",
        "score": 0.9,
        "model": "m",
        "version": "1",
        "scored_at": "now",
    }


@pytest.fixture
def actor():
    """A function that makes an Actor with these settings; .said and .counters are its words and figures."""

    def make(**changes):
        counters, said = {}, []
        made = act.Actor(settings(**changes), counters, lambda *words: said.append(words[0]))
        made.said = said
        return made

    return make


def test_a_command_learns_of_each_change(scoring):
    ready(scoring)
    scoring.configure(
        act={
            "hold_off_s": 0.0,
            "command": ["sh", "-c", f"cat >> {scoring.folder}/events; echo >> {scoring.folder}/events"],
        }
    )
    shots(scoring, 30, 30, 220, 220, 30, 200)
    scoring.run("score", "--once")
    events = [json.loads(event) for event in (scoring.folder / "events").read_text().splitlines()]
    assert [(event["before"], event["label"]) for event in events] == [
        ("empty", "package"),
        ("package", "empty"),
        ("empty", "package"),
    ]
    got = lines(scoring)
    assert [event["image"] for event in events] == [got[2]["image"], got[4]["image"], got[5]["image"]]


def test_a_command_sees_no_credentials(actor, monkeypatch, tmp_path):
    monkeypatch.setenv("WEBHOOK_TOKEN", "tell-nobody")
    made = actor(command=["sh", "-c", f"env > {tmp_path}/env"])
    made.handle(line("empty"))
    made.handle(line("package"))
    made.finish(10)
    seen = (tmp_path / "env").read_text()
    assert "LAKEVISION_LABEL=package" in seen and "tell-nobody" not in seen and "AWS_SECRET" not in seen


def test_hold_off_swallows_flicker_and_loses_no_lasting_change(actor, tmp_path):
    made = actor(command=["sh", "-c", f"echo $LAKEVISION_LABEL >> {tmp_path}/acted"], hold_off_s=0.4)
    for label in ("empty", "package", "empty", "package", "empty"):
        made.handle(line(label))
    made.finish(10)
    assert (tmp_path / "acted").read_text().split() == ["package"]
    time.sleep(0.45)
    made.handle(line("empty"))
    made.finish(10)
    assert (tmp_path / "acted").read_text().split() == ["package", "empty"], (
        "what still holds after the hold-off is acted on"
    )


def test_a_slow_action_never_delays_scoring(scoring):
    ready(scoring)
    scoring.configure(act={"hold_off_s": 0.0, "timeout_s": 30.0, "command": ["sleep", "25"]})
    score = scoring.start("score")
    shots(scoring, *[30, 220] * 15)
    until(
        lambda: not list((scoring.spool / "unscored").iterdir()),
        "all thirty are scored while the first action runs",
        seconds=20,
    )
    assert "act: command" not in scoring.journal("score")
    scoring.stop(score)
    assert scoring.counters("score")["act_dropped"] > 0, "more changes than it can wait for"


def test_a_command_that_fails_is_tried_three_times_and_said(actor):
    made = actor(command=["sh", "-c", "echo broken >&2; exit 3"])
    made.handle(line("empty"))
    made.handle(line("package"))
    made.finish(10)
    assert (
        len(made.said) == 3
        and all("ended with 3: broken" in words for words in made.said)
        and made.counters["act_failures"] == 3
    )


def test_web_hook(actor, monkeypatch):
    monkeypatch.setenv("WEBHOOK_TOKEN", "tok-123456")
    got, answers = [], [500, 204]

    def answer(method, path, query, headers, body):
        got.append((method, path, headers["Authorization"], json.loads(body)))
        return answers.pop(0), b"echo tok-123456"

    with Server(answer) as server:
        made = actor(webhook=f"http://127.0.0.1:{server.port}/ring")
        made.handle(line("empty"))
        made.handle(line("package"))
        made.finish(10)
    assert [entry[:3] for entry in got] == [("POST", "/ring", "Bearer tok-123456")] * 2 and got[1][3][
        "label"
    ] == "package"
    assert "answered 500" in made.said[0] and made.counters["acted"] == 1 and "tok-123456" not in "".join(made.said)


def test_mqtt_through_the_scorer(scoring, monkeypatch):
    monkeypatch.setenv("MQTT_USERNAME", "porch")
    monkeypatch.setenv("MQTT_PASSWORD", "pa55-word")
    ready(scoring)
    with Broker(password=b"pa55-word") as broker:
        scoring.configure(act={"mqtt": f"mqtt://127.0.0.1:{broker.port}/home/porch/label"})
        shots(scoring, 30, 220)
        scoring.run("score", "--once")
    assert [topic for topic, _ in broker.messages] == ["home/porch/label"] and broker.clients == ["lakevision-porch-7"]
    event = json.loads(broker.messages[0][1])
    assert event["label"] == "package" and event["version"] == "1"
    assert "pa55-word" not in scoring.journal("score")


def test_a_long_message_has_a_long_length(monkeypatch):
    with Broker() as broker:
        mqtt.publish(mqtt.Broker("127.0.0.1", broker.port), "t", b"x" * 70000)
        until(lambda: broker.messages, "the message arrives")
    assert broker.messages == [("t", b"x" * 70000)]


@pytest.mark.parametrize(
    "behaviour, error, words",
    [
        (5, mqtt.Refused, "no right"),
        (4, mqtt.Refused, "password"),
        ("http", mqtt.Refused, "is it an MQTT broker"),
        ("mute", OSError, ""),
    ],
    ids=str,
)
def test_a_broker_that_says_no(behaviour, error, words):
    with Broker(behaviour=behaviour) as broker, pytest.raises(error, match=words):
        mqtt.publish(mqtt.Broker("127.0.0.1", broker.port), "t", b"x", timeout_s=0.5)


def test_gpio_without_its_package_says_what_to_install(actor):
    made = actor(gpio="GPIO17")
    made.handle(line("empty"))
    made.handle(line("package"))
    until(lambda: made.said, "it says so")
    assert "apt-get install python3-gpiozero" in made.said[0]


def test_gpio_line_follows_the_label(actor, monkeypatch):
    """gpiozero stood in for by a module of its one class that is used."""
    import sys
    from types import ModuleType

    moves = []
    stand_in = ModuleType("gpiozero")
    stand_in.DigitalOutputDevice = lambda pin: type(
        "Line", (), {"on": lambda self: moves.append((pin, 1)), "off": lambda self: moves.append((pin, 0))}
    )()
    monkeypatch.setitem(sys.modules, "gpiozero", stand_in)
    monkeypatch.setattr(act, "_pins", {})
    made = actor(gpio="GPIO17")
    for label in ("empty", "package", "empty"):
        made.handle(line(label))
    made.finish(10)
    assert moves == [("GPIO17", 1), ("GPIO17", 0)]
