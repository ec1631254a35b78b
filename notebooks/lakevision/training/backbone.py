"""Transfer learning: a pretrained network of Keras Applications under a new head.

    --set training.model=mobilenet_v2 --set training.weights=imagenet

First the backbone is frozen: its features are computed once for each photograph and kept, and only the head is trained
on them, in milliseconds an epoch. Then training.fine_tune_epochs trains the last layers as well. With weights `none`
the whole network is trained from scratch.
"""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import layers

from device import files
from lakevision.dataset import feed
from lakevision.training import pretrained
from lakevision.training.pretrained import BACKBONES, NAME, BadWeights, located

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache
    from lakevision.training.loop import Result
    from lakevision.training.setting import Setting


__all__ = ["BACKBONES", "BadWeights", "located"]  # callers take them from here
BATCH = 64  # photographs at a time: 64 * 224 * 224 * 3 * 4 = 39 MB, and a few times that within the network
_kept: dict[str, feed.Arrays] = {}
_one_at_a_time = threading.Lock()


def frozen(setting: Setting) -> bool:
    """True if a setting starts with a frozen backbone."""
    return setting.model in BACKBONES and setting.weights != "none"


def source(setting: Setting) -> str:
    """Short text for the weights of a backbone. Settings with the same text give the same features for the same pixels.

    For a file the text holds the digest of its bytes. Keras' imagenet weights are fixed by Keras' version, the network
    and the side.
    """
    if setting.weights in ("imagenet", "none"):
        return f"{setting.model}-{setting.weights}-{setting.side}-keras-{keras.__version__}"
    return f"{setting.model}-{hashlib.sha256(Path(setting.weights).read_bytes()).hexdigest()[:16]}-{setting.side}"


def build(model: str, side: int, weights: str = "none") -> keras.Model:
    """A backbone with its weights: pixels, float32 (n, side, side, 3) in 0..255, to features, float32 (n, d).

    model: a name in BACKBONES. weights: as in Setting. With `none` the backbone is ready for training from scratch;
    otherwise all of it is frozen. Raises BadWeights.
    """
    known = BACKBONES[model]
    if side < known.smallest:
        raise BadWeights(f"training.model: {model} needs {known.smallest} px or more, training.transform makes {side}")
    network = pretrained.network(known, side, weights)
    image = keras.Input((side, side, 3), name="image")
    x = image if known.scale == 1 else layers.Rescaling(known.scale, offset=known.offset)(image)
    x = network(x)
    # As in small_cnn, the maximum lets a small object count at any place.
    x = layers.Concatenate(name="features")([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    made = keras.Model(image, x, name=NAME)
    if weights == "none":
        for layer in _normalisations(network):
            layer.momentum = 0.9  # with Keras' 0.99 or 0.999 the averages would not settle in a short run
    elif weights.endswith(".keras"):
        pretrained.copy_saved(made, network, weights)
    made.trainable = weights == "none"
    return made


def _normalisations(network: keras.Model) -> list[Any]:
    return [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def thaw(backbone: keras.Model, count: int) -> None:
    """Makes the last `count` layers of a backbone trainable, in place, except batch normalisation.

    A functional model passes training=True to all its layers. Batch normalisation stays in inference mode only because
    it is not trainable. Its averages come from a million photographs, and a few batches of 16 would spoil them.
    """
    network = next(layer for layer in backbone.layers if isinstance(layer, keras.Model))
    backbone.trainable = True
    for layer in network.layers[: max(0, len(network.layers) - count)] + _normalisations(network):
        layer.trainable = False


def features(network: keras.Model | Setting, pixels: np.ndarray) -> np.ndarray:
    """Features, float32 (n, d), of pixels, uint8 (n, side, side, 3). network: of build(), or a Setting to build one."""
    import tensorflow as tf

    network = network if isinstance(network, keras.Model) else build(network.model, network.side, network.weights)
    forward = tf.function(lambda batch: network(tf.cast(batch, tf.float32), training=False), reduce_retracing=True)
    made = [forward(pixels[start : start + BATCH]).numpy() for start in range(0, len(pixels), BATCH)]
    return np.concatenate(made) if made else np.zeros((0, network.output_shape[-1]), np.float32)


def kept(cache: Cache, setting: Setting, split: str) -> feed.Arrays:
    """One split of a cache as features: Arrays whose pixels are float32 (n, d), in the order of feed.load().

    The features are computed once for a cache and the weights (see source). They are kept in this process and as .npy
    files in the folder of the cache, which all ranks and trials see. Call this on the driver first, so that the others
    find the files. Raises BadWeights.
    """
    folder = Path(cache.folder, "features")
    stem = f"{source(setting)}-{split}"
    with _one_at_a_time:
        key = str(folder / stem)
        if key not in _kept:
            if len(_kept) >= 6:  # three splits of two backbones; more would belong to an old cache
                _kept.clear()
            _kept[key] = _read(folder, stem) or _compute(cache, setting, split, folder, stem)
        return _kept[key]


def _read(folder: Path, stem: str) -> feed.Arrays | None:
    paths = [folder / f"{stem}.{part}.npy" for part in ("keys", "targets", "features")]
    if not paths[2].exists():
        return None
    keys, targets, made = (np.load(path, allow_pickle=False) for path in paths)
    return feed.Arrays(made, targets, keys.tolist())


def _compute(cache: Cache, setting: Setting, split: str, folder: Path, stem: str) -> feed.Arrays:
    arrays = feed.load(cache, split)
    found = replace(arrays, pixels=features(setting, arrays.pixels))
    folder.mkdir(exist_ok=True)
    # The features come last: if their file exists, all files do.
    for part, array in (("keys", np.array(found.keys)), ("targets", found.targets), ("features", found.pixels)):
        whole = io.BytesIO()
        np.save(whole, array)
        files.write_atomically(folder / f"{stem}.{part}.npy", whole.getvalue())
    return found


def head(count: int, classes: int, dropout: float, seed: int) -> keras.Model:
    """Features, float32 (n, count), to probabilities, float32 (n, classes): dropout and one dense layer, from the
    seed.
    """
    keras.utils.set_random_seed(seed)
    given = keras.Input((count,), name="features")
    x = layers.Dropout(dropout)(given)
    return keras.Model(
        given, layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")(x), name="head"
    )


def joined(backbone: keras.Model, top: keras.Model) -> keras.Model:
    """One network of a backbone and a head: pixels, float32 (n, side, side, 3) in 0..255, to probabilities.

    Both parts are shared, not copied.
    """
    image = keras.Input(backbone.input_shape[1:], name="image")
    return keras.Model(image, top(backbone(image)), name=f"{NAME}_and_head")


def fit_head(
    train: feed.Arrays,
    validation: feed.Arrays,
    setting: Setting,
    train_network: Callable,
    on_epoch: Callable | None = None,
) -> tuple[keras.Model, Result]:
    """Trains the head on features. Returns (head, Result with the head's weights): all that a trial needs.

    train, validation: features, as of kept(). train_network(train, validation, setting, network, on_epoch) -> Result:
    the training loop on a given network. There is no augmentation, because the features belong to the unchanged
    photographs.
    """
    top = head(train.pixels.shape[1], setting.classes, setting.dropout, setting.seed)
    return top, train_network(train, validation, replace(setting, augment=False, swap=0.0), top, on_epoch)


def fit(
    train: feed.Arrays,
    validation: feed.Arrays,
    setting: Setting,
    train_network: Callable,
    on_epoch: Callable | None = None,
    features_of: list[feed.Arrays] | None = None,
) -> Result:
    """Trains a setting with a frozen backbone: first the head on features, then the backbone's last layers with it.

    train, validation: pixels. features_of: the features of the same two splits, computed here if None. train_network:
    as in fit_head. Returns a Result with the weights of the joined network and the history of both phases. Only
    fine-tuning augments. With setting.swap the photographs change each time, so the frozen phase runs on pixels through
    the whole network.
    """
    base = build(setting.model, setting.side, setting.weights)
    if setting.swap:
        whole = joined(base, head(base.output_shape[-1], setting.classes, setting.dropout, setting.seed))
        result = train_network(train, validation, setting, whole, on_epoch)
    else:
        own = features_of or [replace(arrays, pixels=features(base, arrays.pixels)) for arrays in (train, validation)]
        top, result = fit_head(own[0], own[1], setting, train_network, on_epoch)
        whole = joined(base, top)
    history = result.history
    if setting.fine_tune_epochs:
        thaw(base, setting.fine_tune_layers)
        again = replace(
            setting, epochs=setting.fine_tune_epochs, learning_rate=setting.learning_rate * setting.fine_tune_rate
        )
        before = len(history)
        later = on_epoch and (lambda epoch, figures: on_epoch(before + epoch, figures))
        history = history + train_network(train, validation, again, whole, later).history
    return replace(result, weights=whole.get_weights(), history=history)
