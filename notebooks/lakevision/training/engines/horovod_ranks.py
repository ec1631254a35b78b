"""Ranks that Horovod starts over Spark and connects with Gloo."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakevision.platform import workspace

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Messages of a rank whose neighbour went away during an operation: from Horovod, or from the connection below.
NEIGHBOUR_GONE = ("HorovodInternalError", "Horovod has been shut down", "gloo/transport")
START_TIMEOUT_S = 120


def launch(spark: SparkSession, function: Callable, argument: Any, count: int, log: Path) -> list[Any]:
    """Calls function(argument) in `count` processes, one in each Spark slot. Returns the results in rank order.

    log: the file that receives what the ranks print. Raises RuntimeError if a rank fails.
    """
    import horovod.spark
    from pyspark import cloudpickle

    with open(log, "w") as output:
        results = horovod.spark.run(
            entry(),
            args=(workspace.library(), cloudpickle.dumps((function, argument))),
            num_proc=count,
            use_gloo=True,
            verbose=0,
            start_timeout=START_TIMEOUT_S,
            stdout=output,
            stderr=output,
        )
    return [pickle.loads(result) for result in results]


def entry() -> Callable[[bytes, bytes], bytes]:
    """The function that a rank starts with: (library, pickle of (function, argument)) -> pickle of the result.

    A rank is a process that cannot import our modules. So this function brings the library as a zip. The function is
    defined inside this one, so that it is sent by value, and it takes and returns pickles, not objects of our classes.
    """

    def rank_main(library: bytes, task: bytes) -> bytes:
        import atexit
        import os
        import pickle
        import shutil
        import sys
        import tempfile

        folder = tempfile.mkdtemp(prefix="lakevision-rank-")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        path = os.path.join(folder, "lakevision_library.zip")
        with open(path, "wb") as file:
            file.write(library)
        sys.path.insert(0, path)
        function, argument = pickle.loads(task)
        return pickle.dumps(function(argument))

    return rank_main


def own_rank() -> int:
    """The number of this process, known before connect()."""
    return int(os.environ["HOROVOD_RANK"])


def connect() -> Any:
    """Connects this process with the other ranks. Returns horovod.tensorflow, initialised."""
    os.environ.setdefault("HOROVOD_CYCLE_TIME", "1")  # ms; the default of 5 doubles the time of a small allreduce
    import horovod.tensorflow as hvd

    from lakevision.training import loop

    hvd.init()
    loop.own_a_gpu(hvd.local_rank())
    return hvd
