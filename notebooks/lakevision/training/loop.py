"""The training loop, the same for a Hyperopt trial (one process) and for the final model (Horovod ranks).

Horovod's DistributedOptimizer averages nothing under Keras 3, silently. So the step is written out here: gradients of all
variables go through one allreduce, as one tensor, which is also faster than one call for each.
"""

import hashlib
import itertools
import os
from dataclasses import dataclass, field, replace

import numpy as np

from device import memory
from device.model import transform
from lakevision.dataset import feed, object_region
from lakevision.dataset.object_region import Region
from lakevision.training import checkpoint, region_swap


@dataclass(frozen=True)
class Setting:
    """What one training run is made with. batch_size: of each rank; learning_rate: of one rank's batch; swap: share of images whose region (a
    object_region.Region) is taken from another, see region_swap.augment; weights and what follows it: of a backbone, see backbone.fit. weights: none,
    imagenet or a path; noise: standard deviation in grey values; patience: epochs without a lower validation loss after which to stop, 0 is never."""

    model: str
    side: int
    classes: int
    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    width: int
    augment: bool
    seed: int
    swap: float = 0.0
    region: Region = None
    weights: str = "none"
    fine_tune_epochs: int = 0
    fine_tune_rate: float = 0.1
    fine_tune_layers: int = 30
    noise: float = 0.0
    patience: int = 0
    mixed_precision: bool = False


@dataclass
class Result:
    """weights: list of arrays in the order of model.weights, of the best epoch where the setting has patience, else of the last; history: one dict an
    epoch (loss, accuracy, val_loss, val_accuracy)."""

    weights: list
    history: list = field(default_factory=list)

    @property
    def digest(self):
        """SHA-256 over all weights: equal on all ranks, or the gradients were not averaged."""
        return hashlib.sha256(b"".join(np.ascontiguousarray(weight).tobytes() for weight in self.weights)).hexdigest()


class NotFinite(ArithmeticError):
    """The loss became NaN or infinite; the message names the epoch and the learning rate."""


def limit_threads(threads):
    """Call before TensorFlow's first operation: ranks and trials that share a machine must not each take all its cores."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import tensorflow as tf

    memory.keep()
    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def fit(train, validation, setting, hvd=None, on_epoch=None, network=None, features_of=None, kept_at=None):
    """Trains a network. train, validation: feed.Arrays, whole, on every rank, or feed.Stream; hvd: an initialised horovod.tensorflow, or None.

    on_epoch(epoch, figures) is called after each epoch, on rank 0; network: a Keras model to train instead of building the setting's, on whatever
    arrays it takes; features_of: see backbone.fit; kept_at: path of the checkpoint, written by rank 0 after each epoch and gone on from where it is
    there. Returns Result. Raises NotFinite.
    """
    import tensorflow as tf

    from lakevision.training import backbone

    if network is None and backbone.frozen(setting):
        phases = itertools.count()

        def loop(*arguments):
            return fit(
                *arguments[:3],
                hvd,
                on_epoch=arguments[4],
                network=arguments[3],
                kept_at=kept_at and f"{kept_at}.{next(phases)}",
            )

        return backbone.fit(train, validation, setting, loop, on_epoch, features_of)
    rank, ranks = (hvd.rank(), hvd.size()) if hvd else (0, 1)
    network = network or _built(setting)
    steps = feed.steps_of(len(train), setting.batch_size, ranks)
    optimizer = tf.keras.optimizers.Adam(_schedule(setting, steps, ranks))
    optimizer.build(network.trainable_variables)
    state = checkpoint.restore(kept_at, network, optimizer) if kept_at else None
    state = state or {"history": [], "best": None, "best_loss": np.inf, "stale": 0}
    if hvd:
        shared = [variable.value for variable in network.variables + optimizer.variables if "seed" not in variable.path]
        hvd.broadcast_variables(shared, 0)
    random = tf.random.Generator.from_seed(setting.seed)
    step = _step(network, optimizer, setting, train.targets, random, hvd if ranks > 1 else None)
    forward = tf.function(lambda pixels: network(pixels, training=False), reduce_retracing=True)
    near = _near(train, setting)
    for epoch in range(len(state["history"]), setting.epochs):
        if setting.patience and state["stale"] >= setting.patience:
            break
        _reseed(network, random, setting.seed, rank, epoch)
        figures = np.zeros(2)
        for batch in _batches(train, setting, near, epoch, rank, ranks):
            figures += [float(value) for value in step(*batch)]
        figures /= steps
        if ranks > 1:
            figures = hvd.allreduce(tf.constant(figures), op=hvd.Average, name="figures").numpy()
            _average_statistics(network, hvd)
        if not np.isfinite(figures[0]):
            raise NotFinite(
                f"the loss is {figures[0]} in epoch {epoch + 1} at learning rate {setting.learning_rate:.2g}: lower it"
            )
        val_loss, val_accuracy = judge(forward, validation, hvd if ranks > 1 else None)
        state["history"].append(
            {
                "loss": float(figures[0]),
                "accuracy": float(figures[1]),
                "val_loss": val_loss,
                "val_accuracy": val_accuracy,
            }
        )
        better = val_loss < state["best_loss"]
        state["stale"] = 0 if better else state["stale"] + 1
        if better:
            state["best_loss"] = val_loss
            state["best"] = network.get_weights() if setting.patience else None
        if rank == 0:
            if on_epoch:
                on_epoch(epoch, state["history"][-1])
            if kept_at:
                checkpoint.save(kept_at, network, optimizer, state)
    if state["best"]:
        network.set_weights(state["best"])
    return Result(network.get_weights(), state["history"])


def _built(setting):
    """The setting's network, computing in bfloat16 where it asks for mixed precision; its weights are float32 either way."""
    import keras

    from lakevision.training import networks

    usual = keras.config.dtype_policy()
    try:
        keras.config.set_dtype_policy("mixed_bfloat16" if setting.mixed_precision else usual)
        return networks.build(
            setting.model, setting.side, setting.classes, setting.width, setting.dropout, setting.seed
        )
    finally:
        keras.config.set_dtype_policy(usual)


def _step(network, optimizer, setting, targets, random, hvd):
    """The tf.function (pixels, targets) -> (loss, accuracy) of one batch, after which the network is one step further."""
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


def _reseed(network, random, seed, rank, epoch):
    """Chance of augmentation and dropout anew for each epoch: ranks must not flip and drop alike, and one that goes on draws what it would have."""
    random.reset_from_seed((seed * 1009 + rank) * 10007 + epoch)
    for variable in network.variables:
        if "seed" in variable.path:
            variable.assign([seed * 1009 + rank & 0xFFFFFFFF, epoch << 16 & 0xFFFFFFFF])


def _near(train, setting):
    """For training.swap: the donors of region_swap.augment, else None."""
    if not setting.swap:
        return None
    if not isinstance(train, feed.Arrays):
        raise ValueError(
            "training.swap exchanges regions between any two photographs, so they must be in memory: raise training.memory_mb, "
            "or set swap to 0"
        )
    return region_swap.donors(train.pixels, train.targets, setting.region)


def _batches(train, setting, near, epoch, rank, ranks):
    if near is None:
        yield from train.epoch(setting.batch_size, setting.seed, epoch, rank, ranks)
        return
    shuffled = np.random.default_rng((setting.seed, rank, epoch, 7))
    for index in feed.batches(len(train), setting.batch_size, setting.seed, epoch, rank, ranks):
        yield region_swap.augment(train.pixels, train.targets, index, near, setting.swap, setting.region, shuffled)


def judge(forward, validation, hvd=None):
    """(mean cross-entropy in nats, accuracy) over all of feed.Arrays or a feed.Stream, exact however many ranks share the work."""
    rank, ranks = (hvd.rank(), hvd.size()) if hvd else (0, 1)
    if isinstance(validation, feed.Arrays):
        parts = [feed.Arrays(validation.pixels[rank::ranks], validation.targets[rank::ranks], [])]
    else:
        parts = feed.exact(validation.cache, validation.side, rank, ranks)
    sums = np.zeros(3)
    for part in parts:
        if len(part):
            loss, accuracy = score(predict(forward, part.pixels), part.targets)
            sums += np.array([loss, accuracy, 1]) * len(part)
    if hvd:
        import tensorflow as tf

        sums = hvd.allreduce(tf.constant(sums), op=hvd.Sum, name="validation").numpy()
    return (float(sums[0] / sums[2]), float(sums[1] / sums[2])) if sums[2] else (float("nan"), float("nan"))


def _schedule(setting, steps, ranks):
    """Warm-up over the first tenth, then a cosine to zero. Adam's rate grows with the square root of the global batch
    (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, 2022); Goyal's linear rule is for SGD."""
    import tensorflow as tf

    peak, total = setting.learning_rate * ranks**0.5, steps * setting.epochs
    warm = max(1, total // 10)
    return tf.keras.optimizers.schedules.CosineDecay(
        peak / 10, max(1, total - warm), warmup_target=peak, warmup_steps=warm
    )


def _average(gradients, hvd):
    """The mean over ranks of a list of gradients, through one allreduce of one flat tensor."""
    import tensorflow as tf

    flat = tf.concat([tf.reshape(gradient, [-1]) for gradient in gradients], 0)
    flat = hvd.allreduce(flat, op=hvd.Average, name="gradients")
    parts = tf.split(flat, [int(np.prod(gradient.shape)) for gradient in gradients])
    return [tf.reshape(part, gradient.shape) for part, gradient in zip(parts, gradients)]


def _average_statistics(network, hvd):
    """Batch normalisation keeps moving averages that each rank has seen only its share of."""
    for variable in network.non_trainable_variables:
        if "moving" in variable.path:
            variable.assign(hvd.allreduce(variable.value, op=hvd.Average, name=variable.path))


def augment(images, random, noise=0.0):
    """Flips, moves by up to a tenth, scales by up to 15 %, turns by up to 6 degrees, relights and recolours each image by itself, and adds noise of
    that standard deviation. images: float32 (n, side, side, 3) in 0..255."""
    import tensorflow as tf

    count, side = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    flip = tf.where(random.uniform([count]) < 0.5, -1.0, 1.0)
    scale = random.uniform([count], 0.85, 1.15)
    turn = random.uniform([count], -0.1, 0.1)
    cos, sin = scale * tf.cos(turn), scale * tf.sin(turn)
    move = random.uniform([count, 2], -0.1, 0.1) * side
    centre = (side - 1) / 2
    zero = tf.zeros([count])
    # One projective transform does it all: (x, y) of the output -> (a x + b y + c, d x + e y + f) of the input.
    matrix = tf.stack(
        [
            flip * cos,
            -sin,
            centre - (flip * cos - sin) * centre + move[:, 0],
            flip * sin,
            cos,
            centre - (flip * sin + cos) * centre + move[:, 1],
            zero,
            zero,
        ],
        1,
    )
    images = tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=matrix,
        output_shape=tf.shape(images)[1:3],
        interpolation="BILINEAR",
        fill_mode="REFLECT",
        fill_value=0.0,
    )
    gain = random.uniform([count, 1, 1, 1], 0.75, 1.25) * random.uniform([count, 1, 1, 3], 0.9, 1.1)
    images = images * gain + random.uniform([count, 1, 1, 1], -16.0, 16.0)
    if noise:
        images += random.normal(tf.shape(images), stddev=noise)
    return tf.clip_by_value(images, 0.0, 255.0)


def class_weights(targets, classes):
    """Weights that make every class count alike (King and Zeng, 2001): n / (classes * n_class). float32 (classes,); a class with no image gets 0."""
    counts = np.bincount(targets, minlength=classes)
    return np.where(counts > 0, len(targets) / (classes * np.maximum(counts, 1)), 0).astype(np.float32)


def predict(network, pixels, batch_size=128):
    """Probabilities, float32 (n, classes), of uint8 pixels (n, side, side, 3). network: anything callable on a batch, such as a
    Keras model or a tf.function of one; Keras' own predict() costs 55 ms each time."""
    return np.concatenate(
        [
            np.asarray(network(pixels[start : start + batch_size].astype(np.float32)))
            for start in range(0, len(pixels), batch_size)
        ]
    )


def score(probabilities, targets):
    """(mean cross-entropy in nats, accuracy) as floats."""
    picked = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(picked, 1e-7, 1)).mean()), float((probabilities.argmax(1) == targets).mean())


def with_weights(setting, weights):
    """The network of a setting, carrying weights of a Result."""
    from lakevision.training import networks

    network = networks.build(setting.model, setting.side, setting.classes, setting.width, setting.dropout, setting.seed)
    network.set_weights(weights)
    return network


def first_setting(cfg, cache):
    """The Setting that the configuration names for a cache; the search varies it. Raises BadRegion where training.swap has no region to swap."""
    from lakevision.training import backbone

    region = object_region.known(cfg) if cfg.training.swap else None
    if cfg.training.swap and region is None:
        raise object_region.BadRegion(
            "training.swap needs to know where the object is before training: evaluation.region_from must be config or boxes, "
            f"it is {cfg.evaluation.region_from}"
        )
    return Setting(
        model=cfg.training.model,
        side=transform.image_size(cache.transform),
        classes=len(cache.classes),
        epochs=cfg.training.epochs,
        batch_size=cfg.training.batch_size,
        learning_rate=float(np.sqrt(np.prod(cfg.tuning.learning_rate))),
        dropout=cfg.tuning.dropout[0],
        width=cfg.tuning.width[0],
        augment=cfg.training.augment,
        seed=cfg.training.seed,
        swap=cfg.training.swap,
        region=region,
        weights=backbone.located(cfg.training.model, cfg.training.weights),
        fine_tune_epochs=cfg.training.fine_tune_epochs,
        fine_tune_rate=cfg.training.fine_tune_rate,
        fine_tune_layers=cfg.training.fine_tune_layers,
        noise=cfg.training.noise,
        patience=cfg.training.patience,
        mixed_precision=cfg.training.mixed_precision,
    )


def longer(setting, epochs):
    """The same setting for another number of epochs."""
    return replace(setting, epochs=epochs)
