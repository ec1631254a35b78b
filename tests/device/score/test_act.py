"""A change of the label causes each configured action once, after the hold-off, and never delays scoring."""

import json
import sys
import time
from types import ModuleType

import pytest
from broker import BrokerServer
from harness import until
from servers import Server
from steps import lines, ready, shots

from device.score import act


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


def result(label, number=0):
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
    """A function that makes an Actor with these settings; its .journal lists the printed lines."""

    def make(**changes):
        counters, journal = {}, []
        made = act.Actor(settings(**changes), counters, lambda line, *_: journal.append(line))
        made.journal = journal
        return made

    return make


def change_label(actor, *labels):
    """Handles results with these labels (default: one change to package), and waits for the actions."""
    for label in labels or ("empty", "package"):
        actor.handle(result(label))
    actor.finish(10)


def test_command_receives_each_change(scoring):
    ready(scoring)
    write = f"cat >> {scoring.folder}/events; echo >> {scoring.folder}/events"
    scoring.configure(act={"hold_off_s": 0.0, "command": ["sh", "-c", write]})
    shots(scoring, 30, 30, 220, 220, 30, 200)
    scoring.run("score", "--once")
    events = [json.loads(event) for event in (scoring.folder / "events").read_text().splitlines()]
    assert [(event["before"], event["label"]) for event in events] == [
        ("empty", "package"),
        ("package", "empty"),
        ("empty", "package"),
    ]
    scored = lines(scoring)
    assert [event["image"] for event in events] == [scored[2]["image"], scored[4]["image"], scored[5]["image"]]


def test_command_gets_label_but_no_credentials(actor, monkeypatch, tmp_path):
    monkeypatch.setenv("WEBHOOK_TOKEN", "tell-nobody")
    change_label(actor(command=["sh", "-c", f"env > {tmp_path}/env"]))
    environment = (tmp_path / "env").read_text()
    assert "LAKEVISION_LABEL=package" in environment
    assert "tell-nobody" not in environment and "AWS_SECRET" not in environment


def test_hold_off_ignores_flicker_but_keeps_lasting_change(actor, tmp_path):
    made = actor(command=["sh", "-c", f"echo $LAKEVISION_LABEL >> {tmp_path}/acted"], hold_off_s=0.4)
    change_label(made, "empty", "package", "empty", "package", "empty")
    assert (tmp_path / "acted").read_text().split() == ["package"]
    time.sleep(0.45)
    change_label(made, "empty")
    assert (tmp_path / "acted").read_text().split() == ["package", "empty"], (
        "a change that outlasts the hold-off is acted on"
    )


def test_slow_action_does_not_delay_scoring(scoring):
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
    assert scoring.counters("score")["act_dropped"] > 0, "more changes than the queue holds"


def test_failed_command_is_tried_three_times(actor):
    made = actor(command=["sh", "-c", "echo broken >&2; exit 3"])
    change_label(made)
    assert len(made.journal) == 3 and all("ended with 3: broken" in line for line in made.journal)
    assert made.counters["act_failures"] == 3


def test_web_hook_sends_token_and_retries_without_showing_it(actor, monkeypatch):
    monkeypatch.setenv("WEBHOOK_TOKEN", "tok-123456")
    requests, statuses = [], [500, 204]

    def answer(method, path, query, headers, body):
        requests.append((method, path, headers["Authorization"], json.loads(body)))
        return statuses.pop(0), b"echo tok-123456"

    with Server(answer) as server:
        made = actor(webhook=f"http://127.0.0.1:{server.port}/ring")
        change_label(made)
    assert [request[:3] for request in requests] == [("POST", "/ring", "Bearer tok-123456")] * 2
    assert requests[1][3]["label"] == "package"
    assert "answered 500" in made.journal[0] and made.counters["acted"] == 1
    assert "tok-123456" not in "".join(made.journal)


def test_mqtt_message_is_sent_by_the_scorer(scoring, monkeypatch):
    monkeypatch.setenv("MQTT_USERNAME", "porch")
    monkeypatch.setenv("MQTT_PASSWORD", "pa55-word")
    ready(scoring)
    with BrokerServer(password=b"pa55-word") as broker:
        scoring.configure(act={"mqtt": f"mqtt://127.0.0.1:{broker.port}/home/porch/label"})
        shots(scoring, 30, 220)
        scoring.run("score", "--once")
    assert [topic for topic, _ in broker.messages] == ["home/porch/label"] and broker.clients == ["lakevision-porch-7"]
    event = json.loads(broker.messages[0][1])
    assert event["label"] == "package" and event["version"] == "1"
    assert "pa55-word" not in scoring.journal("score")


def test_gpio_without_its_package_names_the_packages(actor):
    made = actor(gpio="GPIO17")
    for label in ("empty", "package"):
        made.handle(result(label))
    until(lambda: made.journal, "the failure is reported")
    assert "apt-get install python3-gpiozero" in made.journal[0]


def test_gpio_line_follows_the_label(actor, monkeypatch):
    """A module with gpiozero's single class in use stands in for gpiozero."""
    moves = []
    stand_in = ModuleType("gpiozero")
    stand_in.DigitalOutputDevice = lambda pin: type(
        "Line", (), {"on": lambda self: moves.append((pin, 1)), "off": lambda self: moves.append((pin, 0))}
    )()
    monkeypatch.setitem(sys.modules, "gpiozero", stand_in)
    monkeypatch.setattr(act, "_pins", {})
    change_label(actor(gpio="GPIO17"), "empty", "package", "empty")
    assert moves == [("GPIO17", 1), ("GPIO17", 0)]
