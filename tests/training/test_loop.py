"""The training loop on real engines and few images; test_ranks.py holds the tests with several ranks."""

from dataclasses import replace

import numpy as np
import pytest

from lakevision.dataset import feed
from lakevision.training import loop


def test_same_seed_trains_the_same_weights(arrays, setting):
    one, two = (loop.fit(arrays["train"], arrays["validation"], setting) for _ in range(2))
    assert one.digest == two.digest and one.history == two.history
    assert loop.fit(arrays["train"], arrays["validation"], replace(setting, seed=9)).digest != one.digest


def test_loss_that_is_not_finite_stops_and_names_learning_rate(arrays, setting):
    with pytest.raises(loop.NotFinite, match="learning rate"):
        loop.fit(arrays["train"], arrays["validation"], replace(setting, learning_rate=float("inf")))


def test_interrupted_training_resumes_to_the_same_weights(arrays, setting, tmp_path):
    setting = replace(setting, epochs=4, augment=True, dropout=0.3)
    whole = loop.fit(arrays["train"], arrays["validation"], setting)

    def stop(epoch, figures):
        if epoch == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.fit(arrays["train"], arrays["validation"], setting, on_epoch=stop, kept_at=str(tmp_path / "kept"))
    later = []
    again = loop.fit(
        arrays["train"],
        arrays["validation"],
        setting,
        on_epoch=lambda epoch, _: later.append(epoch),
        kept_at=str(tmp_path / "kept"),
    )
    assert later == [2, 3] and again.digest == whole.digest and again.history == whole.history
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]


def test_patience_stops_and_keeps_the_best_epoch(arrays, setting):
    wild = replace(setting, epochs=12, learning_rate=0.3, patience=2)
    result = loop.fit(arrays["train"], arrays["validation"], wild)
    losses = [epoch["val_loss"] for epoch in result.history]
    best = int(np.argmin(losses))
    assert len(losses) == min(12, best + 3)
    network = loop.with_weights(wild, result.weights)
    loss_and_accuracy = loop.judge(lambda pixels: network(pixels, training=False), arrays["validation"])
    assert loss_and_accuracy[0] == pytest.approx(losses[best], rel=1e-4)


def test_stream_and_arrays_give_the_same_loss(cached, arrays, setting):
    network = loop.with_weights(
        setting, loop.fit(feed.Stream(cached[3], "train"), arrays["validation"], setting).weights
    )
    forward = lambda pixels: network(pixels, training=False)  # noqa: E731
    assert loop.judge(forward, feed.Stream(cached[3], "validation")) == pytest.approx(
        loop.judge(forward, arrays["validation"]), rel=1e-5
    )


def test_mixed_precision_keeps_weights_in_float32(arrays, setting):
    import keras

    result = loop.fit(arrays["train"], arrays["validation"], replace(setting, epochs=1, mixed_precision=True))
    assert all(weight.dtype == np.float32 for weight in result.weights if weight.dtype.kind == "f") and np.isfinite(
        result.history[0]["loss"]
    )
    assert keras.config.dtype_policy().name == "float32"


def test_class_weights_balance_the_classes():
    weights = loop.class_weights(np.array([0, 0, 0, 1]), 3)
    assert weights.tolist() == pytest.approx([4 / 9, 4 / 3, 0])


def test_augmentation_keeps_shape_and_range_but_changes_pixels():
    import tensorflow as tf

    images = tf.cast(tf.random.stateless_uniform((4, 32, 32, 3), (1, 2), 0, 256, tf.int32), tf.float32)
    changed = loop.augment(images, tf.random.Generator.from_seed(1))
    assert changed.shape == images.shape and float(tf.reduce_min(changed)) >= 0 and float(tf.reduce_max(changed)) <= 255
    assert float(tf.reduce_mean(tf.abs(changed - images))) > 5
