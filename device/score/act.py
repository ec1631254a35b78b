"""Actions on a change of the label: a command, a GPIO line, an MQTT message or a web request.

Actions run in a thread of their own, so scoring never waits for them.

Hold-off: after an action, the next one comes act.hold_off_s later at the earliest. A change within that time is not
lost: if the new label still holds afterwards, the device acts then. Secrets (WEBHOOK_TOKEN, MQTT_USERNAME,
MQTT_PASSWORD) are loaded by credentials.py and never shown.
"""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from device.score import mqtt
from device.store import credentials

TRIES = 3
KEPT = 8  # changes that wait for a slow action; beyond this, the oldest is dropped

Event = dict[str, Any]  # label, before (the previous label), device, image, score, model, version, scored_at


class Actor:
    """Runs the configured actions on each change of the label.

    settings: the [act] section. Numbers of actions and failures, and the last error, go into `counters`.
    say: journal.say or the like.
    """

    def __init__(self, settings: SimpleNamespace, counters: dict[str, Any], say: Callable[..., None]):
        self.settings, self.counters, self.say = settings, counters, say
        self.label: str | None = None  # of the last action; before the first one, the first label
        self.acted_at = -float("inf")  # monotonic
        actions = (
            (settings.command, _command),
            (settings.gpio, _gpio),
            (settings.mqtt, _mqtt),
            (settings.webhook, _webhook),
        )
        self.actions = [action for setting, action in actions if setting]
        self.waiting: queue.Queue[Event] = queue.Queue(KEPT)
        self.secrets = credentials.load("act") if self.actions else {}
        if self.actions:
            threading.Thread(target=self._work, daemon=True, name="act").start()

    def handle(self, result: dict[str, Any]) -> None:
        """Takes a frame's result (a dict as made by result_line.py); queues an event if the label changed.

        The first label is the initial state, not a change.
        """
        label = result["label"]
        if self.label is None:
            self.label = label
        held_off = time.monotonic() - self.acted_at < self.settings.hold_off_s
        if not self.actions or label == self.label or held_off:
            return
        before, self.label, self.acted_at = self.label, label, time.monotonic()
        facts = {key: result[key] for key in ("device", "image", "score", "model", "version", "scored_at")}
        event = {"label": label, "before": before, **facts}
        while True:
            try:
                self.waiting.put_nowait(event)
                return
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        try:
            self.waiting.get_nowait()
        except queue.Empty:
            return  # the thread was faster
        self.counters["act_dropped"] = self.counters.get("act_dropped", 0) + 1

    def finish(self, seconds: float) -> None:
        """Waits at most this long for actions under way; for the end of the process."""
        end = time.monotonic() + seconds
        while self.actions and self.waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.02)

    def _work(self) -> None:
        while True:
            event = self.waiting.get()
            for action in self.actions:
                self._try(action, event)
            self.waiting.task_done()

    def _try(self, action: Callable[..., None], event: Event) -> None:
        name = action.__name__[1:]
        for attempt in range(1, TRIES + 1):
            try:
                action(self.settings, event, self.secrets)
                self.counters["acted"] = self.counters.get("acted", 0) + 1
                self.say(f"act: {name} for {event['before']} -> {event['label']}")
                return
            except Exception as error:  # of a command, broker or pin: costs this action, and must not end the thread
                words = credentials.redact(f"{type(error).__name__}: {error}", self.secrets)[:300]
                self.counters["act_failures"] = self.counters.get("act_failures", 0) + 1
                self.counters["act_error"] = f"{name}: {words}"
                self.say(f"act: {name} failed (attempt {attempt} of {TRIES}): {words}", sys.stderr)
                time.sleep(min(0.5 * attempt, self.settings.timeout_s) if attempt < TRIES else 0)


def _command(settings: SimpleNamespace, event: Event, _: dict[str, str]) -> None:
    """Passes the event as JSON on stdin, and label and image in the environment, without the agent's credentials."""
    without_secrets = {
        name: value
        for name, value in os.environ.items()
        if name != "CREDENTIALS_DIRECTORY" and not credentials.SECRET.search(name)
    }
    done = subprocess.run(
        settings.command,
        input=json.dumps(event),
        text=True,
        capture_output=True,
        timeout=settings.timeout_s,
        env={**without_secrets, "LAKEVISION_LABEL": event["label"], "LAKEVISION_IMAGE": event["image"]},
    )
    if done.returncode:
        raise RuntimeError(f"{settings.command[0]} ended with {done.returncode}: {done.stderr.strip()[-200:]}")


_pins: dict[str, Any] = {}  # open GPIO lines by their names


def _gpio(settings: SimpleNamespace, event: Event, _: dict[str, str]) -> None:
    """Sets the line high while the label is act.label. Raises RuntimeError without gpiozero, else gpiozero's errors."""
    try:
        from gpiozero import DigitalOutputDevice
    except ImportError as error:
        raise RuntimeError(
            f"act.gpio needs gpiozero: sudo apt-get install python3-gpiozero python3-lgpio ({error})"
        ) from error
    pin = _pins.get(settings.gpio) or _pins.setdefault(settings.gpio, DigitalOutputDevice(settings.gpio))
    (pin.on if event["label"] == settings.label else pin.off)()


def _mqtt(settings: SimpleNamespace, event: Event, secrets: dict[str, str]) -> None:
    url = urlsplit(settings.mqtt)
    broker = mqtt.Broker(
        host=url.hostname or "",
        port=url.port or 0,
        tls=url.scheme == "mqtts",
        client=f"lakevision-{event['device']}",
        user=secrets.get("MQTT_USERNAME", ""),
        password=secrets.get("MQTT_PASSWORD", ""),
    )
    mqtt.publish(broker, url.path.lstrip("/"), json.dumps(event).encode(), settings.timeout_s)


def _webhook(settings: SimpleNamespace, event: Event, secrets: dict[str, str]) -> None:
    headers = {"Content-Type": "application/json", "User-Agent": "lakevision-device"}
    request = urllib.request.Request(settings.webhook, json.dumps(event).encode(), headers)
    if secrets.get("WEBHOOK_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {secrets['WEBHOOK_TOKEN']}")
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout_s):
            return
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"the web hook answered {error.code}") from None
