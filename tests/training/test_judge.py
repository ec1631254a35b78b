"""Loss and accuracy over a split are exact, in one process and shared among ranks."""

from types import SimpleNamespace

import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.training import judge

PIXELS = np.arange(10, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 3), np.uint8)
TARGETS = np.array([0, 1] * 5, np.int32)
SPLIT = feed.Arrays(PIXELS, TARGETS, [])


def network(pixels):
    """Probability of class 1 rises with the brightness, 0.05 to 0.95."""
    second = 0.05 + np.asarray(pixels).mean((1, 2, 3)) / 10
    return np.stack([1 - second, second], 1)


def test_predict_joins_batches_in_order():
    whole = judge.predict(network, PIXELS)
    assert whole.shape == (10, 2) and np.allclose(judge.predict(network, PIXELS, batch_size=3), whole)


def test_score_is_cross_entropy_and_accuracy():
    loss, accuracy = judge.score(np.array([[0.8, 0.2], [0.6, 0.4]]), np.array([0, 1]))
    assert loss == pytest.approx(-(np.log(0.8) + np.log(0.4)) / 2) and accuracy == 0.5


def test_zero_probability_gives_a_finite_loss():
    assert np.isfinite(judge.score(np.array([[1.0, 0.0]]), np.array([1]))[0])


def test_ranks_together_give_the_figures_of_one_process():
    """Each rank's sums go through an allreduce; here the sums of both ranks are added by hand."""
    sums = []

    def ranks(rank):
        def allreduce(tensor, **_):
            sums.append(tensor.numpy())
            return tensor

        return SimpleNamespace(rank=lambda: rank, size=lambda: 2, allreduce=allreduce, Sum="sum")

    for rank in range(2):
        judge.judge(network, SPLIT, ranks(rank))
    total = sums[0] + sums[1]
    assert total[:2] / total[2] == pytest.approx(judge.judge(network, SPLIT)) and total[2] == 10


def test_empty_split_gives_nan():
    assert all(np.isnan(judge.judge(network, feed.Arrays(PIXELS[:0], TARGETS[:0], []))))
