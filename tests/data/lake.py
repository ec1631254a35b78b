"""Helpers for tests that ingest files: put photographs into the landing zone, and check the rows."""

import io
from pathlib import Path

from PIL import Image
from pyspark.sql import DataFrame

from lakevision.ingest import capture, labels, landing


def put(places, name, data):
    capture.write(Path(places.landing) / name, data)


def picture(seed=0, size=(32, 24)):
    out = io.BytesIO()
    image = Image.new("RGB", size, (seed * 37 % 256, seed * 91 % 256, seed * 151 % 256))
    image.paste("white", (seed * 5 % 20, seed * 3 % 12, seed * 5 % 20 + 8, seed * 3 % 12 + 8))
    image.save(out, "JPEG")
    return out.getvalue()


def paths(spark, places, name):
    return sorted(row["path"] for row in spark.table(places.table(name)).select("path").collect())


def settled(spark, cfg, places, done):
    """Asserts that each landed file has one row in one table, and each image at most one label from its path."""
    good, bad = paths(spark, places, "images"), paths(spark, places, "rejected_images")
    assert sorted(good + bad) == sorted(file.path for file in landing.walk(places.landing))
    assert (done.images, done.rejected, done.landed) == (len(good), len(bad), len(good) + len(bad))
    assert paths(spark, places, "labels") == sorted(path for path in good if labels.of_path(path, cfg.ingest.labels)[0])


class Crash(Exception):
    """Stands for a kill at a place that a real kill seldom hits."""


def crashing(*given, **_):
    """Replaces a step of ingest: raises if the step has work, and leaves the work undone like a kill."""
    if any(
        isinstance(argument, DataFrame)
        or hasattr(argument, "__len__")
        and not isinstance(argument, str)
        and len(argument)
        for argument in given
    ):
        raise Crash("killed here")


def held(spark, places):
    return {row["path"]: row["label"] for row in labels.latest(spark, places).collect()}
