"""Runs a registered version in Spark with mapInArrow, loaded once in each Python worker.

mlflow.pyfunc.spark_udf gives the same predictions (tested) and is slower: 632 images/s against 734 in one run of
tests/bench/score.py. On one machine, and on a cluster whose nodes share a folder, spark_udf loads the model again for
each task, which costs least with a small network. With spark_udf, Spark queues each photograph in the JVM until its
prediction arrives, and a null becomes 'None'.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import zipimport
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import lru_cache
from typing import TYPE_CHECKING

import pyarrow as pa

from device import memory
from lakevision.ingest import landing
from lakevision.platform import workspace

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

RESULT = "label string, probability double, scores array<double>, error string"
ARROW = (pa.string(), pa.float64(), pa.list_(pa.float64()), pa.string())  # RESULT in Arrow


def small_tasks(session: SparkSession) -> AbstractContextManager:
    """Sets tasks of 32 MB, a few seconds each, while the block runs. The last task leaves the other cores idle.

    With Spark's default of 128 MB two small tasks ran first, then a large one alone.
    """
    return workspace.small_batches(session, **{"spark.sql.files.maxPartitionBytes": "32m"})


def scorer(session: SparkSession, model_uri: str, root: str = "") -> Callable[[DataFrame], DataFrame]:
    """Sends a version to the executors. Returns a function from a DataFrame to a DataFrame.

    model_uri: "models:/<name>/<version>". The input has a column `content` (bytes). The output has the input's other
    columns and RESULT. root: the landing zone, if rows without content should be read from there by path and sha256.
    Such a row has an error if its file is gone or has changed.
    """
    import mlflow

    archive = _sent(session, mlflow.get_tracking_uri(), mlflow.get_registry_uri(), model_uri)

    def scores(images):
        keys = [name for name in images.columns if name != "content"]

        def answers(batches):
            rows = loaded(archive)
            for batch in batches:
                contents = batch.column("content").to_pylist()
                if root:
                    contents = [
                        _read(root, *row)
                        for row in zip(
                            batch.column("path").to_pylist(), batch.column("sha256").to_pylist(), contents, strict=True
                        )
                    ]
                columns = list(zip(*rows(contents), strict=True)) or [()] * len(ARROW)
                yield pa.RecordBatch.from_arrays(
                    [*(batch.column(name) for name in keys), *map(pa.array, columns, ARROW)],
                    [*keys, "label", "probability", "scores", "error"],
                )

        schema = ", ".join(f"{name} {images.schema[name].dataType.simpleString()}" for name in keys)
        return images.select(*keys, "content").mapInArrow(answers, f"{schema}, {RESULT}")

    return scores


@lru_cache(maxsize=8)
def _sent(session, tracking_uri, registry_uri, model_uri):
    """Sends a version's files to the executors and returns their name. Once a session: versions never change."""
    from mlflow import artifacts
    from mlflow.pyfunc.spark_model_cache import SparkModelCache

    with tempfile.TemporaryDirectory() as folder:
        return SparkModelCache.add_local_model(session, artifacts.download_artifacts(model_uri, dst_path=folder))


def loaded(archive: str) -> Callable[[list], list]:
    """Loads the model in a Python worker and returns its PhotoModel.rows. MLflow keeps the model loaded.

    archive: name from _sent().
    """
    # One slot is one core. workspace.spark sets these locally, but nothing sets them on Databricks.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    memory.keep()
    from mlflow.pyfunc.spark_model_cache import SparkModelCache

    # MLflow warns of versions that differ from the pins. 01_capture prints them.
    logging.getLogger("mlflow").setLevel(logging.ERROR)
    model, _ = SparkModelCache.get_or_load(archive)
    _settle(archive)
    return model.unwrap_python_model().rows


@lru_cache
def _frozen(archive):
    gc.freeze()


def _settle(archive):
    """Saves 0.35 s between two tasks of a worker. A small task scores its photographs in about the same time.

    Without these steps Spark's worker collects garbage among TensorFlow's permanent objects (0.25 s) and rereads the
    directory of each imported zip file (0.1 s). Small tasks keep all cores busy.
    """
    _frozen(archive)
    for path, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):  # Python creates it again for the next import
            del sys.path_importer_cache[path]


def _read(root, path, sha256, stored):
    """Returns a row's bytes, or None if its landed file is gone or has changed. The model returns an error for None."""
    try:
        return landing.content(root, path, sha256, stored)
    except landing.Changed:
        return None
