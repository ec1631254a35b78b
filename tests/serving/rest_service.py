"""A REST service under test: a small registry, a process that serves from it, and images to send."""

import atexit
import contextlib
import functools
import http.client
import io
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
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
HEAD = b"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
LIMITS = (
    "serve.workers=1",
    "serve.max_rows=100",
    "serve.max_megapixels=4",
    "serve.idle_seconds=2",
    "serve.timeout_seconds=12",
    "serve.max_request_mb=3",
)


SHORT_PAUSES = (
    "import sys; from lakevision.platform import config; from lakevision.serving.rest import main; "
    "sys.exit(main.serve(config.load('local', sys.argv[1:]), pauses=(0.1, 1.0)))"
)


def registered(root):
    """A sqlite registry below root with versions 1 (champion) and 2 of a tiny network, with different weights.

    The registry is built once a session; each call copies it. Returns (Config, {number: pyfunc model}).
    """
    import mlflow

    template = _template()
    copy_registry(template, Path(root))
    cfg = config.load("local", [f"storage.root={root}"])
    tracking.start(cfg, workspace.places(cfg))
    return cfg, {
        number: mlflow.pyfunc.load_model(f"models:/{model_registry.name(cfg)}/{number}") for number in ("1", "2")
    }


@functools.cache
def _template():
    """Builds the registry in a folder that is removed when Python ends. Returns the folder."""
    folder = tempfile.mkdtemp(prefix="lakevision-registry-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    build_registry(folder)
    return Path(folder)


def build_registry(root):
    """Registers two versions of a tiny network with random weights. Version 1 is the champion."""
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


def copy_registry(template, root):
    """Copies a registry's database and artifacts, and replaces the old folder by the new one in all addresses."""
    shutil.copytree(template, root, dirs_exist_ok=True)
    for description in root.rglob("MLmodel"):
        description.write_text(description.read_text().replace(str(template), str(root)))
    with contextlib.closing(sqlite3.connect(root / "mlflow.db")) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        for table in tables:
            for column in [row[1] for row in database.execute(f'PRAGMA table_info("{table}")')]:
                database.execute(
                    f'UPDATE "{table}" SET "{column}" = replace("{column}", ?, ?) WHERE instr("{column}", ?)',
                    (str(template), str(root), str(template)),
                )


def encoded(image, kind="JPEG", **options):
    """Returns a Pillow image as the bytes of an image file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def good_images():
    """Returns {description: image file} that the model must score."""
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
    """A service under test. log(): the text that the service has written."""

    process: subprocess.Popen
    port: int
    path: Path

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def log(self):
        return self.path.read_text()

    def ask(self, body=None, kind="application/octet-stream", path="/invocations", method="POST", **headers):
        """Sends a request. Returns (status, parsed JSON, headers). NaN in the JSON fails the test."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {**({"Content-Type": kind} if kind else {}), **headers})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, json.loads(content, parse_constant=pytest.fail), response.headers


@contextmanager
def serving(cfg, log, *settings, arguments=(), short_pauses=False):
    """Runs a service, yields Running. short_pauses: replaces a worker that died while loading after 0.1 s."""
    words = [f"storage.root={cfg.storage.root}", "serve.port=0", "serve.max_request_mb=2", "serve.workers=2", *settings]
    if short_pauses:
        command = ["-c", SHORT_PAUSES, *words]
    else:
        command = ["-m", "lakevision.serving.rest.main", *(word for setting in words for word in ("--set", setting))]
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, *command, *arguments],
            stdout=file,
            stderr=file,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY / "notebooks"), "TMPDIR": str(Path(log).parent)},
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 120
            while not (greeting := re.search(r"at http://127\.0\.0\.1:(\d+), ", Path(log).read_text())):
                assert process.poll() is None and time.monotonic() < deadline, Path(log).read_text()
                time.sleep(0.1)
            yield Running(process, int(greeting[1]), Path(log))
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            try:
                process.wait(60)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                raise


def workers(service):
    """Returns the worker processes. A worker that was just killed may be a zombie and is left out."""
    found = []
    for child in psutil.Process(service.process.pid).children():
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except (psutil.ZombieProcess, psutil.NoSuchProcess):
            continue
    return found


def until(met, seconds, log):
    """Waits until met() is true. Fails after `seconds` with the text of log()."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline, log()
        time.sleep(0.1)


def expected(model, data):
    """Returns the label, probability and scores of one image in process."""
    row = model.predict(pd.DataFrame({"image": [data]})).iloc[0]
    return row["label"], row["probability"], list(row["scores"])


def same(found, wanted):
    """True if a row of a response holds the `wanted` label, probability and scores, and no error."""
    label, probability, scores = wanted
    return (
        found["label"] == label
        and found["error"] is None
        and np.allclose([found["probability"], *found["scores"]], [probability, *scores], atol=1e-6)
    )


def peak(service):
    """The worker's largest resident memory so far, MB."""
    lines = Path(f"/proc/{workers(service)[0].pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
