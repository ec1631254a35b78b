"""The model that serves now, on the same held-out images as the new one."""

import numpy as np
from pyspark.sql import functions as F

from lakevision.evaluation import intervals
from lakevision.ingest import landing, tables
from lakevision.registry import model_registry

MOST = 500  # images compared: their files are read, not their cached pixels, since the champion may have a transform of its own


def compare(spark, cfg, places, material, version, scheme):
    """Scores the champion on the test side. material: evaluate.Material; version: of images; scheme: of the split.

    Returns a dict of version, note and, where the two can be compared, champion, challenger (accuracies), difference, low, high (challenger less
    champion, with its interval over episodes) and images; an empty dict where there is no champion.
    """
    serving = model_registry.version_of(cfg, "champion")
    if serving is None:
        return {}
    model = model_registry.load(cfg, "champion")
    classes = tuple(model.unwrap_python_model().card["classes"])
    found = {
        "version": serving.version,
        "note": ""
        if serving.tags.get("split_scheme") == scheme
        else "the champion was trained under another split: it may have been trained on these very images",
    }
    if classes != material.classes:
        return {**found, "note": f"the champion knows other classes ({', '.join(classes)}): the two can't be compared"}
    chosen = material.rows.iloc[:MOST]
    wanted = spark.createDataFrame(chosen[["path"]])
    images = (
        tables.at(spark, places, "images", version)
        .join(F.broadcast(wanted), "path")
        .select("path", "sha256", "content")
    )
    said = {}
    for batch in _batches(images.toLocalIterator(), places.landing, 64):
        answers = model.predict(batch[["image"]])
        said |= dict(zip(batch["sha256"], answers["scores"]))
    own = np.array(
        [
            np.argmax(said[key]) == target if said.get(key) is not None else False
            for key, target in zip(chosen["sha256"], material.test.targets[:MOST])
        ]
    )
    new = material.right[:MOST]
    apart = intervals.difference(new, own, chosen["episode"])
    return {
        **found,
        "champion": float(own.mean()),
        "challenger": float(new.mean()),
        "difference": apart.value,
        "low": apart.low,
        "high": apart.high,
        "images": len(own),
    }


def _batches(rows, root, size):
    import pandas as pd

    held = []
    for row in rows:
        held.append((row["sha256"], landing.content(root, row["path"], row["sha256"], row["content"])))
        if len(held) == size:
            yield pd.DataFrame(held, columns=["sha256", "image"])
            held = []
    if held:
        yield pd.DataFrame(held, columns=["sha256", "image"])
