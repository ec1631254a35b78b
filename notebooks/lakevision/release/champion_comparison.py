"""Compares the champion with a new model on the same held-out images."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from lakevision.evaluation import intervals
from lakevision.ingest import landing, tables
from lakevision.platform import config, workspace
from lakevision.registry import model_registry

if TYPE_CHECKING:
    from lakevision.evaluation import evaluate

# Images that are compared. Their files are read, not their cached pixels: the champion may have another transform.
MOST = 500
BATCH = 64  # images in memory


def compare(
    spark: SparkSession,
    cfg: config.Config,
    places: workspace.Places,
    material: evaluate.Material,
    version: int,
    scheme: str,
) -> dict:
    """Scores the champion on the test split. version: of the table `images`; scheme: of the split.

    Returns an empty dict if there is no champion, else version and note. If both models can be compared, the dict also
    has champion and challenger (accuracies), images, and difference, low and high: challenger minus champion, with its
    95 % interval over episodes.
    """
    serving = model_registry.version_of(cfg, "champion")
    if serving is None:
        return {}
    model = model_registry.load(cfg, "champion")
    classes = tuple(model.unwrap_python_model().card["classes"])
    same_split = serving.tags.get("split_scheme") == scheme
    note = "the champion was trained under another split: it may have been trained on these very images"
    result = {"version": str(serving.version), "note": "" if same_split else note}
    if classes != material.classes:
        return {**result, "note": f"the champion has other classes ({', '.join(classes)}): no comparison is possible"}
    chosen = material.rows.iloc[:MOST]
    scores = _scores(model, _images(spark, places, chosen, version), places.landing)
    champion = np.array(
        [
            scores.get(sha256) is not None and np.argmax(scores[sha256]) == target
            for sha256, target in zip(chosen["sha256"], material.test.targets[:MOST], strict=True)
        ]
    )
    challenger = material.right[:MOST]
    difference = intervals.difference(challenger, champion, chosen["episode"])
    return {
        **result,
        "champion": float(champion.mean()),
        "challenger": float(challenger.mean()),
        "difference": difference.value,
        "low": difference.low,
        "high": difference.high,
        "images": len(champion),
    }


def _images(spark: SparkSession, places: workspace.Places, chosen: pd.DataFrame, version: int) -> DataFrame:
    """path, sha256 and content of the chosen images at a version of the table."""
    wanted = spark.createDataFrame(chosen[["path"]])
    images = tables.at(spark, places, "images", version)
    return images.join(F.broadcast(wanted), "path").select("path", "sha256", "content")


def _scores(model: Any, images: DataFrame, root: str) -> dict[str, Any]:
    """{sha256: probabilities, or None for an image that the model refuses}."""
    scores: dict[str, Any] = {}
    for batch in _batches(images.toLocalIterator(), root):
        scores |= dict(zip(batch["sha256"], model.predict(batch[["image"]])["scores"], strict=True))
    return scores


def _batches(rows: Iterable, root: str) -> Iterator[pd.DataFrame]:
    """DataFrames of sha256 and image (bytes), of BATCH rows at most. root: the landing zone."""
    batch = []
    for row in rows:
        batch.append((row["sha256"], landing.content(root, row["path"], row["sha256"], row["content"])))
        if len(batch) == BATCH:
            yield pd.DataFrame(batch, columns=["sha256", "image"])
            batch = []
    if batch:
        yield pd.DataFrame(batch, columns=["sha256", "image"])
