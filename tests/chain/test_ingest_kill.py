"""kill -9 of a whole ingest at random moments while files land: in the end each file is one row.

The kill includes the JVM and the workers. The suite kills 2 times; LAKEVISION_SOAK=1 kills 20 times.
"""

import os
import random
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from corpus import encoded, picture

from lakevision.ingest import capture, labels, landing, stream, tables
from lakevision.platform.workspace import REPOSITORY

pytestmark = [pytest.mark.spark, pytest.mark.kill]
KILLS = 20 if os.environ.get("LAKEVISION_SOAK") == "1" else 2
CHILD = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/notebooks"]
from lakevision.ingest import stream
from lakevision.platform import config, workspace
cfg = config.load("local", sys.argv[2:])
places, spark = workspace.places(cfg), workspace.spark(cfg)
while True:
    print("run", flush=True)
    stream.ingest(spark, cfg, places)
"""


class Ingest:
    """A process that ingests again and again until it is killed."""

    def __init__(self, settings, places, log):
        self.log, self.places = log, places
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(REPOSITORY), *settings],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )

    def commits(self):
        return sum(1 for _ in Path(self.places.warehouse).glob("*/_delta_log/*.json"))

    def kill_during_a_run(self, rng):
        """Kills the ingest and all its child processes at a random moment of a run. Returns the number of processes.

        The moment is some commits after the start, plus a random time: a kill can do harm between two commits, and the
        seconds until then depend on the machine.
        """
        assert self.process.stdout.readline() == "run\n", Path(self.log.name).read_text()[-3000:]
        enough, patience = self.commits() + rng.choice((0, 1, 1, 2, 3, 4, 6)), time.monotonic() + 180
        while self.commits() < enough:
            assert self.process.poll() is None and time.monotonic() < patience, (
                f"ingest ended or does not write: {Path(self.log.name).read_text()[-3000:]}"
            )
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.7))
        assert self.process.poll() is None, Path(self.log.name).read_text()[-3000:]
        return self.kill()

    def kill(self):
        # Spark's Python daemon has its own process group, so killing the group of the ingest would spare the daemon.
        everyone = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        for process in everyone:
            try:
                process.kill()
            except psutil.NoSuchProcess:
                continue  # a worker that has ended by itself
        psutil.wait_procs(everyone, timeout=20)
        self.process.wait()
        self.process.stdout.close()
        return len(everyone)


def fill(places, stop, written, rng):
    """Lands a file every 150 ms: photographs, copies of one photograph, and some cut, empty or text files."""
    while not stop.is_set():
        index = len(written)
        good = encoded(picture(index, (48, 40)))
        data = rng.choice([good] * 8 + [good[:150], b"", b"no image", encoded(picture(0, (48, 40)))])
        name = f"{rng.choice(('', '', '', 'device=a/', '_raw/'))}{index:05d}_{rng.choice(('dog', 'cat'))}.jpg"
        capture.write(Path(places.landing, name), data)
        written.append(name)
        stop.wait(0.15)


def test_each_file_is_one_row_after_kills(lakehouse, tmp_path):
    spark, make = lakehouse
    cfg, places = make("ingest.max_files_per_batch=40", "ingest.labels=name")
    settings = [
        f"storage.root={places.root}",
        f"storage.schema={cfg.storage.schema}",
        "ingest.max_files_per_batch=40",
        "ingest.labels=name",
        "spark.memory=1g",
    ]
    rng, stop, written = random.Random(20), threading.Event(), []
    tables.create(spark, places)
    filler = threading.Thread(target=fill, args=(places, stop, written, random.Random(21)))
    filler.start()
    try:
        with open(tmp_path / "ingest.log", "w") as log:
            for _ in range(KILLS):
                process = Ingest(settings, places, log)
                try:
                    killed = process.kill_during_a_run(rng)
                finally:
                    if process.process.poll() is None:
                        process.kill()
                assert killed > 1, "the JVM must be killed, too"
    finally:
        stop.set()
        filler.join()
    before = sum(spark.table(places.table(name)).count() for name in ("images", "rejected_images"))
    assert before, "every kill came before the first write"
    done = stream.ingest(spark, cfg, places)
    good, bad, named = (
        [row["path"] for row in spark.table(places.table(name)).select("path").collect()]
        for name in ("images", "rejected_images", "labels")
    )
    assert sorted(good + bad) == sorted(written) == sorted(file.path for file in landing.walk(places.landing))
    assert (done.landed, done.images, done.rejected) == (len(written), len(good), len(bad))
    assert sorted(named) == sorted(path for path in good if labels.of_path(path, "name")[0])
    print(
        f"{KILLS} kills: {len(written)} files landed, {before} had a row before the last run, "
        f"{len(good)} images and {len(bad)} rejected after it"
    )
