"""Horovod's side of an engine: processes over Spark, averaged gradients."""

import pytest

from lakevision.training.engines import horovod_ranks

pytestmark = pytest.mark.slow


def test_gradients_are_averaged(spark, tmp_path):
    def work(name):
        import tensorflow as tf

        from lakevision.training import loop
        from lakevision.training.engines import horovod_ranks

        number, engine = horovod_ranks.own_rank(), horovod_ranks.connect()
        mine = [tf.fill((2, 3), 1.0 + engine.rank()), tf.fill((4,), 10.0 * engine.rank())]
        return name, number, engine.rank(), [gradient.numpy().tolist() for gradient in loop._average(mine, engine)]

    results = horovod_ranks.launch(spark, work, "given", 2, tmp_path / "output")
    assert results == [("given", rank, rank, [[[1.5] * 3] * 2, [5.0] * 4]) for rank in (0, 1)]
