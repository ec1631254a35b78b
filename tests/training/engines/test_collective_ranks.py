"""TensorFlow's collectives as an engine: child processes in a Spark barrier stage, means, sums and broadcasts."""

import os
import signal
import threading
import time

import psutil
import pytest

from lakevision.training.engines import collective_ranks

pytestmark = pytest.mark.slow


def children():
    """The rank processes below this one."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if any("collective_ranks.child_main" in word for word in process.cmdline()):
                found.append(process)
        except psutil.NoSuchProcess:
            continue  # ended meanwhile
    return found


def test_ranks_average_sum_and_broadcast(spark, tmp_path):
    def work(name):
        import tensorflow as tf

        from lakevision.training import loop
        from lakevision.training.engines import collective_ranks

        number, engine = collective_ranks.own_rank(), collective_ranks.connect()
        rank = engine.rank()
        mine = [tf.fill((2, 3), 1.0 + rank), tf.fill((4,), 10.0 * rank)]
        averaged = [gradient.numpy().tolist() for gradient in loop._average(mine, engine)]
        total = engine.allreduce(tf.constant([1.0 + rank, 2.0], tf.float64), engine.Sum, "total").numpy().tolist()
        variables = [tf.Variable([3.0 + rank, 4.0]), tf.Variable(7 + rank, dtype=tf.int64)]
        engine.broadcast_variables(variables, 0)
        return name, number, rank, averaged, total, [variable.numpy().tolist() for variable in variables]

    results = collective_ranks.launch(spark, work, "given", 2, tmp_path / "output")
    expected = [[[1.5] * 3] * 2, [5.0] * 4], [3.0, 4.0], [[3.0, 4.0], 7]
    assert results == [("given", rank, rank, *expected) for rank in (0, 1)]
    assert not children() and not list(tmp_path.iterdir())


def test_failed_rank_ends_its_neighbour_and_shows_output(spark, tmp_path):
    def work(_):
        import time

        from lakevision.training.engines import collective_ranks

        if collective_ranks.own_rank() == 1:
            raise ArithmeticError("the sums are wrong")
        time.sleep(600)

    with pytest.raises(RuntimeError, match="rank 0 was killed by signal SIGKILL; rank 1 ended with status 1"):
        collective_ranks.launch(spark, work, None, 2, tmp_path / "output")
    assert "ArithmeticError: the sums are wrong" in (tmp_path / "output").read_text()
    assert not children()


def test_rank_ends_with_its_task(spark, tmp_path):
    """A cancelled job leaves no process behind."""

    def work(folder):
        import pathlib
        import time

        from lakevision.training.engines import collective_ranks

        pathlib.Path(folder, f"started-{collective_ranks.own_rank()}").touch()
        time.sleep(600)

    failures = []

    def run():
        try:
            collective_ranks.launch(spark, work, str(tmp_path), 2, tmp_path / "output")
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    while len(list(tmp_path.glob("started-*"))) < 2:
        time.sleep(0.1)
        assert thread.is_alive()
    started = children()
    for worker in {child.ppid() for child in started}:
        os.kill(worker, signal.SIGKILL)
    thread.join(60)
    assert len(started) == 2 and not thread.is_alive() and failures
    _, alive = psutil.wait_procs(started, timeout=30)
    assert not alive
