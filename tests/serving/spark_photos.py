"""Simulated photographs for tests of scoring in Spark, and the predictions made from them."""

from pathlib import Path

from device.simulation import porch


def land(places, first, count):
    """Lands photographs number `first` to `first + count - 1`."""
    for scene in porch.plan(first + count, size=(64, 64))[first:]:
        path = Path(places.landing, porch.key(scene))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(porch.jpeg(scene))


def predictions(spark, places):
    """Returns the table `predictions`, pandas."""
    return spark.table(places.table("predictions")).toPandas()
