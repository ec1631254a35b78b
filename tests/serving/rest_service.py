"""A REST service under test: a small registry, a process that serves from it, and images to ask it about."""

import http.client
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from PIL import Image

from device.simulation import porch
from lakevision.platform import config, workspace
from lakevision.registry import model_registry, tracking

REPOSITORY = Path(__file__).resolve().parents[2]
SECRET = "QUJDREVGsecretpayload"  # looks like base64, too
LINE = "decode|upright|rgb|resize(32)"


def registered(root):
    """(Config of a sqlite registry below root with versions 1 (champion) and 2 of a tiny network, of other weights; {number: pyfunc model})."""
    import keras
    import mlflow

    cfg = config.load("local", [f"storage.root={root}"])
    experiment = tracking.start(cfg, workspace.places(cfg))
    photo = porch.jpeg(porch.plan(1, size=(64, 64))[0])
    for seed in (1, 2):
        keras.utils.set_random_seed(seed)
        inputs = keras.Input((32, 32, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(
            keras.layers.Conv2D(4, 3, strides=4)(keras.layers.Rescaling(1 / 255)(inputs))
        )
        network = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(pooled))
        with mlflow.start_run(experiment_id=experiment):
            uri = model_registry.log(
                network, {"classes": ["empty", "package"], "transform": LINE, "threshold": 0.5}, photo
            )
        model_registry.register(cfg, uri, {})
    model_registry.set_alias(cfg, "champion", "1")
    return cfg, {
        number: mlflow.pyfunc.load_model(f"models:/{model_registry.name(cfg)}/{number}") for number in ("1", "2")
    }


def encoded(image, kind="JPEG", **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def good_images():
    photo = porch.picture(porch.plan(1, size=(160, 120))[0])
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "jpeg": encoded(photo),
        "rotated": encoded(photo, exif=turned.tobytes()),
        "grey": encoded(photo.convert("L")),
        "cmyk": encoded(photo.convert("CMYK")),
        "png with alpha": encoded(photo.convert("RGBA"), "PNG"),
        "tiny": encoded(photo.resize((1, 1)), "PNG"),
        "large": encoded(photo.resize((1800, 1400))),
    }


GOOD = good_images()
BAD = {
    "truncated": GOOD["jpeg"][:1500],
    "text": SECRET.encode(),
    "header": GOOD["jpeg"][:20],
    "heic": b"\0\0\0\x18ftyp" + SECRET.encode(),
    "pdf": b"%PDF" + SECRET.encode(),
}


@dataclass
class Running:
    """A service under test. log(): what it has written."""

    process: subprocess.Popen
    port: int
    path: Path

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def log(self):
        return self.path.read_text()

    def ask(self, body=None, kind="application/octet-stream", path="/invocations", method="POST", **headers):
        """(status, what the JSON holds, the answer's headers). JSON with NaN fails."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {**({"Content-Type": kind} if kind else {}), **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content, parse_constant=pytest.fail), response.headers


@contextmanager
def serving(cfg, log, *settings, arguments=()):
    words = [
        word
        for setting in (
            f"storage.root={cfg.storage.root}",
            "serve.port=0",
            "serve.max_request_mb=2",
            "serve.workers=2",
            *settings,
        )
        for word in ("--set", setting)
    ]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "lakevision.serving.rest.main", *words, *arguments],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "notebooks"), "TMPDIR": str(Path(log).parent)},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not (said := re.search(r"at http://127\.0\.0\.1:(\d+), ", Path(log).read_text())):
                assert process.poll() is None and time.monotonic() < deadline, Path(log).read_text()
                time.sleep(0.1)
            yield Running(process, int(said[1]), Path(log))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def workers(service):
    """The processes that serve; one that was killed a moment ago may be a zombie by the time it is looked at."""
    found = []
    for child in psutil.Process(service.process.pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            continue
    return found


def until(met, seconds, log):
    """Waits until met() is true. Fails with what log() says."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, log()
        time.sleep(0.1)


def expected(model, data):
    row = model.predict(pd.DataFrame({"image": [data]})).iloc[0]
    return row["label"], row["probability"], list(row["scores"])


def same(found, wanted):
    label, probability, scores = wanted
    return (
        found["label"] == label
        and found["error"] is None
        and np.allclose([found["probability"], *found["scores"]], [probability, *scores], atol=1e-6)
    )
