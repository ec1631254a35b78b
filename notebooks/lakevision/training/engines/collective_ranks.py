"""Ranks that start in a Spark barrier stage and are connected by TensorFlow's collectives.

Each task of the stage starts one child process and waits for it. The child leads TensorFlow's own server for the time
of the training, so it cannot be a Spark worker, which Spark uses again. The child ends when its task ends: it watches
its standard input, which closes with the task's process.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import uuid
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

# Messages of a rank whose neighbour went away: from the collectives, their connection or the coordination service.
NEIGHBOUR_GONE = ("UnavailableError", "CancelledError", "AbortedError", "InternalError", "DeadlineExceededError")
GROUP = 1  # TensorFlow's key of the group of all ranks
POLL_S = 0.1  # how often a task looks at its child, and at the marks of its neighbours
GRACE_S = 5.0  # how long a rank may still write its report after a neighbour ended badly
LAST_WORDS = 3000  # characters of a failed rank's output in the error
MAIN = "from lakevision.training.engines import collective_ranks; collective_ranks.child_main()"


def launch(spark: SparkSession, function: Callable, argument: Any, count: int, log: Path) -> list[Any]:
    """Calls function(argument) in `count` processes, one in each Spark slot. Returns the results in rank order.

    log: the file that receives the last output of failed ranks; its folder must be seen by all ranks. Raises
    RuntimeError if a rank fails.
    """
    from pyspark import cloudpickle

    task, shared = cloudpickle.dumps((function, argument)), str(log.parent)

    def on_slot(_: Iterable[int]) -> Iterator[Outcome]:
        from lakevision.training.engines import collective_ranks

        yield collective_ranks.run_child(task, shared)

    outcomes = spark.sparkContext.parallelize(range(count), count).barrier().mapPartitions(on_slot).collect()
    failed = [outcome for outcome in outcomes if outcome.result is None]
    if failed:
        log.write_text("\n".join(outcome.output for outcome in failed))
        raise RuntimeError("; ".join(outcome.end for outcome in failed))
    return [pickle.loads(outcome.result) for outcome in outcomes]


@dataclass
class Outcome:
    """The end of one rank. result: a pickle, None after a failure. end, output: how a failed rank ended, its output."""

    result: bytes | None
    end: str = ""
    output: str = ""


def run_child(task: bytes, shared: str) -> Outcome:
    """Runs one rank in a child process of this Spark task, and waits for it.

    shared: a folder that all ranks see. A rank that ends badly leaves a mark there, so that its neighbours end too.
    """
    from pyspark import BarrierTaskContext

    context = BarrierTaskContext.get()
    rank = context.partitionId()
    address = context.getTaskInfos()[rank].address  # with Spark's own port, or without a port
    addresses = context.allGather(f"{address.rpartition(':')[0] or address}:{_free_port()}")
    # Spark may run a stage again, so the marks belong to one set of addresses.
    mark = Path(shared, f"ended-{uuid.uuid5(uuid.NAMESPACE_URL, ' '.join(addresses)).hex}")
    folder = Path(tempfile.mkdtemp(prefix="lakevision-rank-"))
    try:
        with open(folder / "output", "w") as output:
            child = subprocess.Popen(
                [sys.executable, "-c", MAIN],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=_environment(addresses, rank, folder),
            )
            try:
                _send(child, task)
                _wait(child, mark)
            finally:
                child.kill()
                child.wait()
        result = folder / "result"
        if child.returncode == 0 and result.exists():
            return Outcome(result.read_bytes())
        mark.touch()
        return Outcome(
            None, f"rank {rank} {_end(child.returncode)}", (folder / "output").read_text(errors="replace")[-LAST_WORDS:]
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _environment(addresses: list[str], rank: int, folder: Path) -> dict[str, str]:
    """The environment of a child: Python finds what this Spark worker finds, and TensorFlow the other ranks."""
    cluster = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": rank}}
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "TF_CONFIG": json.dumps(cluster),
        "LAKEVISION_RANK_FOLDER": str(folder),
        "TMPDIR": str(folder),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]


def _send(child: subprocess.Popen, task: bytes) -> None:
    """Writes the task to the child, and leaves the pipe open: its end tells the child that this process has gone."""
    assert child.stdin is not None
    with suppress(BrokenPipeError):  # the child has ended already; _wait() finds that
        child.stdin.write(len(task).to_bytes(8, "big") + task)
        child.stdin.flush()


def _wait(child: subprocess.Popen, mark: Path) -> None:
    """Waits for the child, or until GRACE_S after a neighbour left its mark."""
    deadline = float("inf")
    while child.poll() is None and time.monotonic() < deadline:
        time.sleep(POLL_S)
        if deadline == float("inf") and mark.exists():
            deadline = time.monotonic() + GRACE_S


def _end(returncode: int) -> str:
    if returncode >= 0:
        return f"ended with status {returncode}"
    return f"was killed by signal {signal.Signals(-returncode).name}"


def child_main() -> None:
    """The main program of a rank: reads (function, argument) from standard input and writes the result to a file."""
    from device import files

    stream = sys.stdin.buffer
    task = stream.read(int.from_bytes(stream.read(8), "big"))

    def end_with_parent() -> None:
        stream.read()
        os._exit(1)

    threading.Thread(target=end_with_parent, daemon=True).start()
    status = 1
    try:
        function, argument = pickle.loads(task)
        result = pickle.dumps(function(argument))
        files.write_atomically(Path(os.environ["LAKEVISION_RANK_FOLDER"], "result"), result)
        status = 0
    except Exception:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)  # a normal exit would wait for TensorFlow's server, and for the thread above


def own_rank() -> int:
    """The number of this process, known before connect()."""
    return json.loads(os.environ["TF_CONFIG"])["task"]["index"]


def connect() -> Engine:
    """Connects this process with the other ranks. Call it before TensorFlow's first operation."""
    import tensorflow as tf

    from lakevision.training import loop

    given = json.loads(os.environ["TF_CONFIG"])
    workers, rank = given["cluster"]["worker"], given["task"]["index"]
    hosts = [worker.rpartition(":")[0] for worker in workers]
    loop.own_a_gpu(hosts[:rank].count(hosts[rank]))
    # The strategy reads TF_CONFIG, starts TensorFlow's server and joins the coordination service.
    return Engine(rank, len(workers), tf.distribute.MultiWorkerMirroredStrategy())


class Engine:
    """The names of Horovod that the training loop uses, over TensorFlow's collectives."""

    Average, Sum = "Div", "Id"  # TensorFlow's names of the last step of a reduction

    def __init__(self, rank: int, size: int, strategy: Any):
        self._rank, self._size, self._strategy = rank, size, strategy

    def rank(self) -> int:
        """The number of this process, from 0."""
        return self._rank

    def size(self) -> int:
        """The number of ranks."""
        return self._size

    def allreduce(self, tensor: Any, op: str, name: str) -> Any:
        """The mean or the sum of a tensor over all ranks, with the same shape and dtype.

        op: Average or Sum. name: the same on all ranks, and another for each operation that may run at the same time.
        """
        import tensorflow as tf

        key = zlib.crc32(f"{name} {tensor.shape} {tensor.dtype.name}".encode()) & 0x7FFFFFFF
        return tf.raw_ops.CollectiveReduceV2(
            input=tensor,
            group_size=self._size,
            group_key=GROUP,
            instance_key=key,
            ordering_token=[],
            merge_op="Add",
            final_op=op,
        )

    def broadcast_variables(self, variables: list, root: int) -> None:
        """Sets variables to their values on rank `root`: the sum over all ranks, to which the others add zeros."""
        import tensorflow as tf

        for number, variable in enumerate(variables):
            own = variable if self._rank == root else tf.zeros_like(variable)
            variable.assign(self.allreduce(tf.convert_to_tensor(own), self.Sum, f"variable {number}"))
