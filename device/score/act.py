"""What happens on a change of the label: a command, a GPIO line, an MQTT message, a web request. In a thread of its own; scoring never waits for it.

Hold-off: after an action the next one comes act.hold_off_s later at the earliest. A change within that time is not lost: if the new label still
holds afterwards, that is acted on then. Secrets (WEBHOOK_TOKEN, MQTT_USERNAME, MQTT_PASSWORD) come as in credentials.py and are never shown.
"""

import json
import os
import queue
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from urllib.parse import urlsplit

from device.score import mqtt
from device.store import credentials

TRIES = 3
KEPT = 8  # changes that wait for a slow action; then the oldest goes


class Actor:
    """settings: [act]. seen(line) for every result; failures and the last error are in `counters`, a dict."""

    def __init__(self, settings, counters, say):
        self.settings, self.counters, self.say = settings, counters, say
        self.label, self.acted_at = None, -float("inf")
        ways = (
            (settings.command, _command),
            (settings.gpio, _gpio),
            (settings.mqtt, _mqtt),
            (settings.webhook, _webhook),
        )
        self.ways = [way for wanted, way in ways if wanted]
        self.waiting = queue.Queue(KEPT)
        self.secrets = credentials.load("act") if self.ways else {}
        if self.ways:
            threading.Thread(target=self._work, daemon=True, name="act").start()

    def seen(self, line):
        """Takes in a result, a dict as it goes home. The first label is the state that things are in, not a change."""
        if self.label is None:
            self.label = line["label"]
        if not self.ways or line["label"] == self.label or time.monotonic() - self.acted_at < self.settings.hold_off_s:
            return
        before, self.label, self.acted_at = self.label, line["label"], time.monotonic()
        event = {
            "label": line["label"],
            "before": before,
            **{key: line[key] for key in ("device", "image", "score", "model", "version", "scored_at")},
        }
        while True:
            try:
                self.waiting.put_nowait(event)
                return
            except queue.Full:
                self._drop_oldest()

    def _drop_oldest(self):
        try:
            self.waiting.get_nowait()
            self.counters["act_dropped"] = self.counters.get("act_dropped", 0) + 1
        except queue.Empty:
            return  # the thread was faster

    def finish(self, seconds):
        """Waits, so long at most, for what is under way; for the end of the process."""
        end = time.monotonic() + seconds
        while self.ways and self.waiting.unfinished_tasks and time.monotonic() < end:
            time.sleep(0.02)

    def _work(self):
        while True:
            event = self.waiting.get()
            for way in self.ways:
                self._try(way, event)
            self.waiting.task_done()

    def _try(self, way, event):
        name = way.__name__[1:]
        for attempt in range(1, TRIES + 1):
            try:
                way(self.settings, event, self.secrets)
                self.counters["acted"] = self.counters.get("acted", 0) + 1
                self.say(f"act: {name} for {event['before']} -> {event['label']}")
                return
            except (
                Exception
            ) as error:  # a command, a broker, a pin: whatever it is, it costs this action and nothing else
                words = credentials.redact(f"{type(error).__name__}: {error}", self.secrets)[:300]
                self.counters["act_failures"] = self.counters.get("act_failures", 0) + 1
                self.counters["act_error"] = f"{name}: {words}"
                self.say(f"act: {name} failed (time {attempt} of {TRIES}): {words}", sys.stderr)
                time.sleep(min(0.5 * attempt, self.settings.timeout_s) if attempt < TRIES else 0)


def _command(settings, event, _):
    """The event as JSON on its standard input, and label and image in its environment; none of our own credentials."""
    clean = {
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
        env={**clean, "LAKEVISION_LABEL": event["label"], "LAKEVISION_IMAGE": event["image"]},
    )
    if done.returncode:
        raise RuntimeError(f"{settings.command[0]} ended with {done.returncode}: {done.stderr.strip()[-200:]}")


_pins = {}


def _gpio(settings, event, _):
    """High while the label is act.label. Raises where gpiozero, or the pin, is not to be had."""
    try:
        from gpiozero import DigitalOutputDevice
    except ImportError as error:
        raise RuntimeError(
            f"act.gpio needs gpiozero: sudo apt-get install python3-gpiozero python3-lgpio ({error})"
        ) from error
    pin = _pins.get(settings.gpio) or _pins.setdefault(settings.gpio, DigitalOutputDevice(settings.gpio))
    (pin.on if event["label"] == settings.label else pin.off)()


def _mqtt(settings, event, secrets):
    url = urlsplit(settings.mqtt)
    mqtt.publish(
        url.hostname,
        url.port,
        url.path.lstrip("/"),
        json.dumps(event).encode(),
        tls=url.scheme == "mqtts",
        client=f"lakevision-{event['device']}",
        user=secrets.get("MQTT_USERNAME", ""),
        password=secrets.get("MQTT_PASSWORD", ""),
        timeout_s=settings.timeout_s,
    )


def _webhook(settings, event, secrets):
    headers = {"Content-Type": "application/json", "User-Agent": "lakevision-device"}
    request = urllib.request.Request(settings.webhook, json.dumps(event).encode(), headers)
    if secrets.get("WEBHOOK_TOKEN"):
        request.add_unredirected_header("Authorization", f"Bearer {secrets['WEBHOOK_TOKEN']}")
    try:
        with urllib.request.urlopen(request, timeout=settings.timeout_s):
            return
    except urllib.error.HTTPError as error:
        raise RuntimeError(f"the web hook answered {error.code}") from None
