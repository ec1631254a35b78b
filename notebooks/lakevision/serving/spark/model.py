"""Runs a registered version in Spark: mapInArrow around MLflow's pyfunc, loaded once in each Python worker.

mlflow.pyfunc.spark_udf gives the same predictions (tested) and is slower: 632 images/s against 734 in one run of
tests/bench/score.py. On one machine, and on a cluster whose nodes share a folder, it loads the model again for each
task. A small network shows this least. Spark queues each photograph in the JVM until its prediction arrives, and the
conversions of spark_udf write 'None' for null.
"""

import gc
import logging
import os
import sys
import tempfile
import zipimport
from functools import lru_cache

import pyarrow as pa

from device import memory
from lakevision.ingest import landing
from lakevision.platform import workspace

RESULT = "label string, probability double, scores array<double>, error string"
ARROW = (pa.string(), pa.float64(), pa.list_(pa.float64()), pa.string())  # the same


def small_tasks(session):
    """Sets tasks of 32 MB, a few seconds each, while the block runs, because the last task leaves the other cores idle.

    With Spark's default of 128 MB two small tasks ran first, then a large one alone.
    """
    return workspace.small_batches(session, **{"spark.sql.files.maxPartitionBytes": "32m"})


def scorer(session, model_uri, root=""):
    """Sends a version to the executors. Returns a function from a DataFrame to a DataFrame.

    The input has a column `content` (bytes). The output has the input's other columns and RESULT. root: the landing
    zone; a row without content is then read by path and sha256, and has an error if the file is gone or has changed.
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
    """Sends a version's files to the executors, once a session, as versions never change. Returns a name."""
    from mlflow import artifacts
    from mlflow.pyfunc.spark_model_cache import SparkModelCache

    with tempfile.TemporaryDirectory() as folder:
        return SparkModelCache.add_local_model(session, artifacts.download_artifacts(model_uri, dst_path=folder))


def loaded(archive):
    """In a Python worker: returns PhotoModel.rows. MLflow keeps the model while the worker lives."""
    # One slot is one core. workspace.spark sets these locally, but nothing sets them on Databricks.
    os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
    os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")
    memory.keep()
    from mlflow.pyfunc.spark_model_cache import SparkModelCache

    logging.getLogger("mlflow").setLevel(
        logging.ERROR
    )  # warns of versions that differ from the pins; 01_capture prints them
    model, _ = SparkModelCache.get_or_load(archive)
    _settle(archive)
    return model.unwrap_python_model().rows


@lru_cache
def _frozen(archive):
    gc.freeze()


def _settle(archive):
    """Saves 0.35 s between two tasks of a worker, which is as much as a small task's photographs take.

    Spark's worker collects garbage among TensorFlow's permanent objects (0.25 s) and rereads the directory of each zip
    that has been imported from (0.1 s). Small tasks keep all cores busy.
    """
    _frozen(archive)
    for place, finder in list(sys.path_importer_cache.items()):
        if isinstance(finder, zipimport.zipimporter):  # Python creates it again for the next import
            del sys.path_importer_cache[place]


def _read(root, path, sha256, stored):
    """Returns a row's bytes, or None if its file in the landing zone is gone or has changed. The model reports None."""
    try:
        return landing.content(root, path, sha256, stored)
    except landing.Changed:
        return None
