"""The training loop, the same for a Hyperopt trial and for the final model on several ranks.

Under Keras 3, Horovod's DistributedOptimizer silently averages nothing. So the step is written out here: the gradients
of all variables go through one allreduce as one tensor, which is also faster than one call for each.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from device import memory
from lakevision.dataset import feed
from lakevision.training import checkpoint, region_swap
from lakevision.training.augment import augment
from lakevision.training.judge import judge, predict, score
from lakevision.training.setting import Setting, first_setting, longer

# Callers take these from here, beside fit().
__all__ = ["Setting", "augment", "first_setting", "judge", "longer", "predict", "score"]


@dataclass
class Result:
    """What a training gives.

    weights: arrays in the order of model.weights, of the best epoch if the setting has patience, else of the last
    epoch. history: one dict for each epoch (loss, accuracy, val_loss, val_accuracy).
    """

    weights: list[np.ndarray]
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 over all weights: equal on all ranks, or the gradients were not averaged."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(weight).tobytes() for weight in self.weights)).hexdigest()


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the message names the epoch and the learning rate."""


def limit_threads(threads: int) -> None:
    """Limits TensorFlow to so many threads, because ranks and trials share a machine.

    Call it before TensorFlow's first operation.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    memory.keep()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def own_a_gpu(number: int) -> None:
    """Gives this process one of the machine's GPUs, if there are any, and lets its memory grow as needed.

    number: that of the process among those of this machine. Call it before TensorFlow's first operation.
    """
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        gpu = gpus[number % len(gpus)]
        tf.config.set_visible_devices(gpu, "GPU")
        tf.config.experimental.set_memory_growth(gpu, True)


def fit(
    train: Any,
    validation: Any,
    setting: Setting,
    hvd: Any = None,
    on_epoch: Callable[[int, dict[str, float]], None] | None = None,
    network: Any = None,
    features_of: list[feed.Arrays] | None = None,
    kept_at: str | None = None,
) -> Result:  # 8 parameters: trials, ranks and the two phases of a backbone share this one loop
    """Trains a network.

    train, validation: feed.Arrays or feed.Stream of the whole splits, on every rank. hvd: a connected engine, such as
    horovod.tensorflow, or None. on_epoch(epoch, figures): called after each epoch on rank 0. network: a Keras model to
    train instead of the setting's own, on whatever arrays it takes. features_of: see backbone.fit. kept_at: path of the
    checkpoint, which rank 0 writes after each epoch; if the file exists, training resumes from it.

    Returns Result. Raises NotFinite.
    """
    import tensorflow as tf

    from lakevision.training import backbone

    if network is None and backbone.frozen(setting):
        phases = itertools.count()

        def fit_phase(train: Any, validation: Any, own: Setting, network: Any, on_epoch: Any) -> Result:
            path = kept_at and f"{kept_at}.{next(phases)}"
            return fit(train, validation, own, hvd, on_epoch=on_epoch, network=network, kept_at=path)

        return backbone.fit(train, validation, setting, fit_phase, on_epoch, features_of)
    rank, ranks = (hvd.rank(), hvd.size()) if hvd else (0, 1)
    together = hvd if ranks > 1 else None
    network = network or _built(setting)
    optimizer, state = _start(network, setting, feed.steps_of(len(train), setting.batch_size, ranks), hvd, kept_at)
    random = tf.random.Generator.from_seed(setting.seed)
    step = _step(network, optimizer, setting, train.targets, random, together)
    forward = tf.function(lambda pixels: network(pixels, training=False), reduce_retracing=True)
    donors = _donors(train, setting)
    for epoch in range(len(state["history"]), setting.epochs):
        if setting.patience and state["stale"] >= setting.patience:
            break
        _reseed(network, random, setting.seed, rank, epoch)
        loss, accuracy = _train_epoch(step, _batches(train, setting, donors, epoch, rank, ranks), together)
        if together:
            _average_statistics(network, hvd)
        if not np.isfinite(loss):
            raise NotFinite(
                f"the loss is {loss} in epoch {epoch + 1} at learning rate {setting.learning_rate:.2g}: lower it"
            )
        _keep_epoch(state, network, setting, (loss, accuracy, *judge(forward, validation, together)))
        if rank == 0 and on_epoch:
            on_epoch(epoch, state["history"][-1])
        if rank == 0 and kept_at:
            checkpoint.save(kept_at, network, optimizer, state)
    if state["best"]:
        network.set_weights(state["best"])
    return Result(network.get_weights(), state["history"])


def _built(setting: Setting) -> Any:
    """The setting's network. With mixed precision it computes in bfloat16; its weights are float32 in any case."""
    import keras

    usual = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16" if setting.mixed_precision else usual)
        return _network(setting)
    finally:
        keras.config.set_dtype_policy(usual)


def _network(setting: Setting) -> Any:
    from lakevision.training import networks

    return networks.build(setting.model, setting.side, setting.classes, setting.width, setting.dropout, setting.seed)


def _start(network: Any, setting: Setting, steps: int, hvd: Any, kept_at: str | None) -> tuple[Any, dict[str, Any]]:
    """(optimizer, state of the training), new or from the checkpoint, with equal weights on all ranks."""
    import tensorflow as tf

    optimizer = tf.keras.optimizers.Adam(_schedule(setting, steps, hvd.size() if hvd else 1))
    optimizer.build(network.trainable_variables)
    state = checkpoint.restore(kept_at, network, optimizer) if kept_at else None
    if hvd:
        shared = [variable.value for variable in network.variables + optimizer.variables if "seed" not in variable.path]
        hvd.broadcast_variables(shared, 0)
    return optimizer, state or {"history": [], "best": None, "best_loss": np.inf, "stale": 0}


def _step(network: Any, optimizer: Any, setting: Setting, targets: np.ndarray, random: Any, hvd: Any) -> Callable:
    """The tf.function (pixels, targets) -> (loss, accuracy) that trains the network on one batch."""
    import tensorflow as tf

    weights = tf.constant(class_weights(targets, setting.classes))
    trained = [variable.value for variable in network.trainable_variables]

    @tf.function(reduce_retracing=True)
    def step(pixels, targets):
        images = tf.cast(pixels, tf.float32)
        if setting.augment:
            images = augment(images, random, setting.noise)
        with tf.GradientTape() as tape:
            probabilities = network(images, training=True)
            losses = tf.keras.losses.sparse_categorical_crossentropy(targets, probabilities)
            loss = tf.reduce_mean(losses * tf.gather(weights, targets))
        gradients = tape.gradient(loss, trained)
        if hvd:
            gradients = _average(gradients, hvd)
        optimizer.apply(gradients, network.trainable_variables)
        right = tf.reduce_mean(tf.cast(tf.argmax(probabilities, 1, tf.int32) == targets, tf.float32))
        return loss, right

    return step


def _train_epoch(step: Callable, batches: Iterator, hvd: Any) -> tuple[float, float]:
    """Trains one epoch. Returns the mean (loss, accuracy) over its steps, and over all ranks."""
    sums, steps = np.zeros(2), 0
    for batch in batches:
        sums += [float(value) for value in step(*batch)]
        steps += 1
    figures = sums / steps
    if hvd:
        import tensorflow as tf

        figures = hvd.allreduce(tf.constant(figures), op=hvd.Average, name="figures").numpy()
    return float(figures[0]), float(figures[1])


def _keep_epoch(state: dict[str, Any], network: Any, setting: Setting, figures: tuple[float, ...]) -> None:
    """Adds an epoch to the state. figures: loss, accuracy, val_loss, val_accuracy."""
    state["history"].append(dict(zip(("loss", "accuracy", "val_loss", "val_accuracy"), figures, strict=True)))
    val_loss = figures[2]
    better = val_loss < state["best_loss"]
    state["stale"] = 0 if better else state["stale"] + 1
    if better:
        state["best_loss"] = val_loss
        state["best"] = network.get_weights() if setting.patience else None


def _reseed(network: Any, random: Any, seed: int, rank: int, epoch: int) -> None:
    """Reseeds augmentation and dropout for an epoch. Ranks must differ; a resumed run must draw the same numbers."""
    random.reset_from_seed((seed * 1009 + rank) * 10007 + epoch)
    for variable in network.variables:
        if "seed" in variable.path:
            variable.assign([seed * 1009 + rank & 0xFFFFFFFF, epoch << 16 & 0xFFFFFFFF])


def _donors(train: feed.Arrays | feed.Stream, setting: Setting) -> np.ndarray | None:
    """For training.swap: the donors of region_swap.augment, else None."""
    if not setting.swap:
        return None
    if not isinstance(train, feed.Arrays):
        raise ValueError(
            "training.swap exchanges regions between any two photographs, so all must be in memory: raise "
            "training.memory_mb, or set swap to 0"
        )
    return region_swap.donors(train.pixels, train.targets, setting.region)


def _batches(
    train: Any, setting: Setting, donors: np.ndarray | None, epoch: int, rank: int, ranks: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if donors is None:
        yield from train.epoch(setting.batch_size, setting.seed, epoch, rank, ranks)
        return
    rng = np.random.default_rng((setting.seed, rank, epoch, 7))
    for index in feed.batches(len(train), setting.batch_size, setting.seed, epoch, rank, ranks):
        yield region_swap.augment(train.pixels, train.targets, index, donors, setting.swap, setting.region, rng)


def _schedule(setting: Setting, steps: int, ranks: int) -> Any:
    """Warm-up over the first tenth of the steps, then a cosine to zero.

    Adam's rate grows with the square root of the global batch (Malladi et al., On the SDEs and Scaling Rules for
    Adaptive Gradient Algorithms, 2022). Goyal's linear rule is for SGD.
    """
    import tensorflow as tf

    peak, total = setting.learning_rate * ranks**0.5, steps * setting.epochs
    warm = max(1, total // 10)
    return tf.keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, total - warm), warmup_target=peak, warmup_steps=warm
    )


def _average(gradients: list, hvd: Any) -> list:
    """The mean of the gradients over the ranks, through one allreduce of one flat tensor."""
    import tensorflow as tf

    flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)
    flat = hvd.allreduce(flat, op=hvd.Average, name="gradients")
    parts = tf.split(flat, [int(np.prod(gradient.shape)) for gradient in gradients])
    return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients, strict=True)]


def _average_statistics(network: Any, hvd: Any) -> None:
    """Averages the moving averages of batch normalisation: each rank has only its own share of the images."""
    for variable in network.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(hvd.allreduce(variable.value, op=hvd.Average, name=variable.path))


def class_weights(targets: np.ndarray, classes: int) -> np.ndarray:
    """Weights that make every class count alike (King and Zeng, 2001): n / (classes * n_class).

    targets: int (n,). Returns float32 (classes,); a class without images gets 0.
    """
    counts = np.bincount(targets, minlength=classes)
    return np.where(counts > 0, len(targets) / (classes * np.maximum(counts, 1)), 0).astype(np.float32)


def with_weights(setting: Setting, weights: list[np.ndarray]) -> Any:
    """The Keras network of a setting with the weights of a Result."""
    network = _network(setting)
    network.set_weights(weights)
    return network
