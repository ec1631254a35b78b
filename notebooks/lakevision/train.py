"""The training loop, the same for a Hyperopt trial (one process) and for the final model (Horovod ranks).

Horovod's DistributedOptimizer averages nothing under Keras 3, silently. So the step is written out here: gradients of all
variables go through one allreduce, as one tensor, which is also faster than one call for each.
"""

import hashlib
import os
from dataclasses import dataclass, field, replace

import numpy as np

from device import transform
from lakevision import feed, region
from lakevision.region import Region


@dataclass(frozen=True)
class Setting:
    """What one training run is made with. batch_size: of each rank; learning_rate: of one rank's batch; swap: share of images whose region (a
    region.Region) is taken from another, see intervention.augment; weights and what follows it: of a backbone, see backbone.fit. weights: none,
    imagenet or a path."""

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


@dataclass
class Result:
    """weights: list of arrays in the order of model.weights; history: one dict an epoch (loss, accuracy, val_loss, val_accuracy)."""

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

    tf.config.threading.set_intra_op_parallelism_threads(threads)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def fit(train, validation, setting, hvd=None, on_epoch=None, network=None, features_of=None):
    """Trains a network. train, validation: feed.Arrays, whole, on every rank; hvd: an initialised horovod.tensorflow, or None for one process.

    on_epoch(epoch, figures) is called after each epoch, on rank 0; network: a Keras model to train instead of building the setting's, on whatever
    arrays it takes; features_of: see backbone.fit. Returns Result. Raises NotFinite.
    """
    import tensorflow as tf

    from lakevision import backbone, intervention
    from lakevision import model as networks

    if network is None and backbone.frozen(setting):
        def loop(*arguments):
            return fit(*arguments[:3], hvd, on_epoch=arguments[4], network=arguments[3])

        return backbone.fit(train, validation, setting, loop, on_epoch, features_of)
    rank, ranks = (hvd.rank(), hvd.size()) if hvd else (0, 1)
    network = network or networks.build(setting.model, setting.side, setting.classes, setting.width, setting.dropout, setting.seed)
    steps = -(-len(train) // (setting.batch_size * ranks))
    optimizer = tf.keras.optimizers.Adam(_schedule(setting, steps, ranks))
    optimizer.build(network.trainable_variables)
    if hvd:
        shared = [variable.value for variable in network.variables + optimizer.variables if "seed" not in variable.path]
        hvd.broadcast_variables(shared, 0)
    # Ranks must not drop and flip alike.
    tf.random.set_seed(setting.seed * 1000 + rank)
    random = tf.random.Generator.from_seed(setting.seed * 1000 + rank)
    weights = tf.constant(class_weights(train.targets, setting.classes))
    trained = [variable.value for variable in network.trainable_variables]

    @tf.function(reduce_retracing=True)
    def step(pixels, targets):
        images = tf.cast(pixels, tf.float32)
        if setting.augment:
            images = augment(images, random)
        with tf.GradientTape() as tape:
            probabilities = network(images, training=True)
            losses = tf.keras.losses.sparse_categorical_crossentropy(targets, probabilities)
            loss = tf.reduce_mean(losses * tf.gather(weights, targets))
        gradients = tape.gradient(loss, trained)
        if hvd and ranks > 1:
            gradients = _average(gradients, hvd)
        optimizer.apply(gradients, network.trainable_variables)
        right = tf.reduce_mean(tf.cast(tf.argmax(probabilities, 1, tf.int32) == targets, tf.float32))
        return loss, right

    shuffled = np.random.default_rng((setting.seed, rank, 7))
    near = intervention.donors(train.pixels, setting.region) if setting.swap else None

    def batch(index):
        if not setting.swap:
            return train.pixels[index], train.targets[index]
        return intervention.augment(train.pixels, train.targets, index, near, setting.swap, setting.region, shuffled)

    forward = tf.function(lambda pixels: network(pixels, training=False), reduce_retracing=True)
    result = Result([])
    for epoch in range(setting.epochs):
        figures = np.zeros(2)
        for index in feed.batches(len(train), setting.batch_size, setting.seed, epoch, rank, ranks):
            figures += [float(value) for value in step(*batch(index))]
        figures /= steps
        if hvd and ranks > 1:
            figures = hvd.allreduce(tf.constant(figures), op=hvd.Average, name="figures").numpy()
            _average_statistics(network, hvd)
        if not np.isfinite(figures[0]):
            raise NotFinite(f"the loss is {figures[0]} in epoch {epoch + 1} at learning rate {setting.learning_rate:.2g}: lower it")
        val_loss, val_accuracy = score(predict(forward, validation.pixels), validation.targets)
        result.history.append({"loss": float(figures[0]), "accuracy": float(figures[1]), "val_loss": val_loss, "val_accuracy": val_accuracy})
        if on_epoch and rank == 0:
            on_epoch(epoch, result.history[-1])
    result.weights = network.get_weights()
    return result


def _schedule(setting, steps, ranks):
    """Warm-up over the first tenth, then a cosine to zero. Adam's rate grows with the square root of the global batch
    (Malladi et al., On the SDEs and Scaling Rules for Adaptive Gradient Algorithms, 2022); Goyal's linear rule is for SGD."""
    import tensorflow as tf

    peak, total = setting.learning_rate * ranks ** 0.5, steps * setting.epochs
    warm = max(1, total // 10)
    return tf.keras.optimizers.schedules.CosineDecay(peak / 10, max(1, total - warm), warmup_target=peak, warmup_steps=warm)


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


def augment(images, random):
    """Flips, moves by up to a tenth, scales by up to 15 %, turns by up to 6 degrees, relights and recolours each image by itself. images: float32 (n, side, side, 3) in 0..255."""
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
    matrix = tf.stack([flip * cos, -sin, centre - (flip * cos - sin) * centre + move[:, 0],
                       flip * sin, cos, centre - (flip * sin + cos) * centre + move[:, 1], zero, zero], 1)
    images = tf.raw_ops.ImageProjectiveTransformV3(images=images, transforms=matrix, output_shape=tf.shape(images)[1:3],
                                                   interpolation="BILINEAR", fill_mode="REFLECT", fill_value=0.0)
    gain = random.uniform([count, 1, 1, 1], 0.75, 1.25) * random.uniform([count, 1, 1, 3], 0.9, 1.1)
    return tf.clip_by_value(images * gain + random.uniform([count, 1, 1, 1], -16.0, 16.0), 0.0, 255.0)


def class_weights(targets, classes):
    """Weights that make every class count alike (King and Zeng, 2001): n / (classes * n_class). float32 (classes,); a class with no image gets 0."""
    counts = np.bincount(targets, minlength=classes)
    return np.where(counts > 0, len(targets) / (classes * np.maximum(counts, 1)), 0).astype(np.float32)


def predict(network, pixels, batch_size=128):
    """Probabilities, float32 (n, classes), of uint8 pixels (n, side, side, 3). network: anything callable on a batch, such as a
    Keras model or a tf.function of one; Keras' own predict() costs 55 ms each time."""
    return np.concatenate([np.asarray(network(pixels[start:start + batch_size].astype(np.float32)))
                           for start in range(0, len(pixels), batch_size)])


def score(probabilities, targets):
    """(mean cross-entropy in nats, accuracy) as floats."""
    picked = probabilities[np.arange(len(targets)), targets]
    return float(-np.log(np.clip(picked, 1e-7, 1)).mean()), float((probabilities.argmax(1) == targets).mean())


def with_weights(setting, weights):
    """The network of a setting, carrying weights of a Result."""
    from lakevision import model as networks

    network = networks.build(setting.model, setting.side, setting.classes, setting.width, setting.dropout, setting.seed)
    network.set_weights(weights)
    return network


def first_setting(cfg, cache):
    """The Setting that the configuration names for a cache; the search varies it. Raises BadRegion where training.swap has no region to swap."""
    from lakevision import backbone

    where = region.known(cfg) if cfg.training.swap else None
    if cfg.training.swap and where is None:
        raise region.BadRegion("training.swap needs to know where the object is before training: evaluation.region_from must be config or boxes, "
                               f"it is {cfg.evaluation.region_from}")
    return Setting(model=cfg.training.model, side=transform.side(cache.transform), classes=len(cache.classes), epochs=cfg.training.epochs,
                   batch_size=cfg.training.batch_size, learning_rate=float(np.sqrt(np.prod(cfg.tuning.learning_rate))),
                   dropout=cfg.tuning.dropout[0], width=cfg.tuning.width[0], augment=cfg.training.augment, seed=cfg.training.seed,
                   swap=cfg.training.swap, region=where, weights=backbone.located(cfg.training.model, cfg.training.weights),
                   fine_tune_epochs=cfg.training.fine_tune_epochs, fine_tune_rate=cfg.training.fine_tune_rate, fine_tune_layers=cfg.training.fine_tune_layers)


def longer(setting, epochs):
    """The same setting for another number of epochs."""
    return replace(setting, epochs=epochs)
