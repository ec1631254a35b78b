"""Champion and challenger on the same held-out images: accuracies, difference, and models that can't be compared."""

from types import SimpleNamespace

import numpy as np
import pytest

from lakevision.ingest import capture, stream, tables
from lakevision.registry import model_registry
from lakevision.release import champion_comparison

pytestmark = pytest.mark.spark


@pytest.fixture
def compared(two):
    """A function from (classes, scheme) to the comparison of a perfect challenger with version 1, on 8 photographs."""
    spark, cfg, places = two
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    rows = spark.table(places.table("images")).select("path", "sha256").orderBy("path").limit(8).toPandas()
    rows["episode"] = [f"episode {index // 2}" for index in range(8)]
    targets = np.array([0, 1] * 4)

    def compare(classes=("empty", "package"), scheme="seed 1"):
        material = SimpleNamespace(
            classes=classes, rows=rows, test=SimpleNamespace(targets=targets), right=np.ones(8, bool)
        )
        return champion_comparison.compare(spark, cfg, places, material, version, scheme)

    return compare, cfg, places, rows, targets


def test_comparison_gives_accuracies_and_their_difference(compared):
    from pathlib import Path

    import pandas as pd

    compare, cfg, places, rows, targets = compared
    assert compare() == {}
    model_registry.set_alias(cfg, "champion", "1")
    result = compare()
    model = model_registry.load(cfg, "champion")
    images = [Path(places.landing, path).read_bytes() for path in rows["path"]]
    scores = np.stack(model.predict(pd.DataFrame({"image": images}))["scores"].to_list())
    accuracy = float((scores.argmax(1) == targets).mean())
    assert (result["champion"], result["challenger"], result["images"]) == (accuracy, 1.0, 8)
    assert (
        result["difference"] == pytest.approx(1 - accuracy) and result["low"] <= result["difference"] <= result["high"]
    )
    assert result["version"] == "1" and "under another split" in result["note"]


def test_champion_of_other_classes_is_not_compared(compared):
    compare, cfg, *_ = compared
    model_registry.set_alias(cfg, "champion", "1")
    result = compare(classes=("cat", "dog"))
    assert set(result) == {"version", "note"} and "other classes (empty, package)" in result["note"]


def test_images_are_read_in_small_batches(monkeypatch):
    monkeypatch.setattr(champion_comparison, "BATCH", 2)
    monkeypatch.setattr(champion_comparison.landing, "content", lambda root, path, sha256, content: content)
    rows = [{"path": str(index), "sha256": str(index), "content": b"x"} for index in range(5)]
    assert [len(batch) for batch in champion_comparison._batches(rows, "")] == [2, 2, 1]
