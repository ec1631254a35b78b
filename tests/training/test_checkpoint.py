"""Checkpoints: everything comes back, and a half-written file never replaces a whole one."""

import keras
import numpy as np
import pytest

from lakevision.training import checkpoint


def made(seed):
    """A small built model and its optimizer after one step."""
    keras.utils.set_random_seed(seed)
    network = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    optimizer = keras.optimizers.Adam(0.1)
    optimizer.build(network.trainable_variables)
    optimizer.apply([np.ones(variable.shape, np.float32) for variable in network.trainable_variables])
    return network, optimizer


@pytest.mark.parametrize("best", [None, [np.arange(3.0)]], ids=["no best epoch", "best epoch"])
def test_everything_comes_back(tmp_path, best):
    path, (network, optimizer) = str(tmp_path / "checkpoint"), made(1)
    checkpoint.save(path, network, optimizer, {"history": [{"loss": 0.5}], "stale": 2, "best": best})
    other, fresh = made(2)
    state = checkpoint.restore(path, other, fresh)
    assert (state["history"], state["stale"]) == ([{"loss": 0.5}], 2)
    assert (state["best"] is None) == (best is None) and (best is None or np.array_equal(state["best"][0], best[0]))
    assert all(np.array_equal(a, b) for a, b in zip(network.get_weights(), other.get_weights()))
    assert all(np.array_equal(a.numpy(), b.numpy()) for a, b in zip(optimizer.variables, fresh.variables))
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"], "no partial file is left"


def test_missing_checkpoint_restores_nothing(tmp_path):
    assert checkpoint.restore(str(tmp_path / "none"), *made(1)) is None


def test_failed_write_keeps_the_old_checkpoint(tmp_path, monkeypatch):
    path, (network, optimizer) = str(tmp_path / "checkpoint"), made(1)
    checkpoint.save(path, network, optimizer, {"stale": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.files.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, network, optimizer, {"stale": 2})
    assert checkpoint.restore(path, *made(2))["stale"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["checkpoint"]
