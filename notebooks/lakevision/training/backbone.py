"""Transfer learning: a Keras Applications network, trained on other people's photographs, under a new head.

    --set training.model=mobilenet_v2 --set training.weights=imagenet

First the backbone is frozen: its features are computed once for each photograph and kept, and the head alone is trained on them, milliseconds an
epoch. Then, where training.fine_tune_epochs says so, its last layers are trained, too. With weights none all is trained from scratch.
"""

import contextlib
import fcntl
import hashlib
import os
import threading
import uuid
import warnings
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
from keras import layers

from lakevision.dataset import feed
from lakevision.platform import workspace

# network: its name in keras.applications; scale, offset: what brings 0..255 to what its weights were trained on (1, 0: it does that itself);
# smallest: side in pixels.
Known = namedtuple("Known", "network scale offset smallest")
BACKBONES = {
    "mobilenet_v2": Known("MobileNetV2", 1 / 127.5, -1, 32),
    "mobilenet_v3_small": Known("MobileNetV3Small", 1, 0, 32),
    "efficientnet_v2_b0": Known("EfficientNetV2B0", 1, 0, 32),
    "resnet50_v2": Known("ResNet50V2", 1 / 127.5, -1, 32),
}
BATCH = 64  # photographs at a time: 64 * 224 * 224 * 3 * 4 = 39 MB, and a few times that within the network
NAME = "backbone"  # of the layer that holds it
_kept, _one_at_a_time = {}, threading.Lock()


class BadWeights(ValueError):
    """training.weights names weights that can't be had, or that don't fit; the message says what to do."""


def frozen(setting):
    """Whether a loop.Setting begins with a frozen backbone."""
    return setting.model in BACKBONES and setting.weights != "none"


def located(model, weights):
    """training.weights as a Setting holds it: none for a network that has no backbone; imagenet; or an absolute path, relative ones being below the
    repository. Raises BadWeights where there is no such file."""
    if model not in BACKBONES or weights == "none":
        return "none"
    if weights == "imagenet":
        return weights
    path = Path(weights) if os.path.isabs(weights) else workspace.REPOSITORY / weights
    if not path.is_file():
        raise BadWeights(
            f"training.weights: {path} is no file; expected imagenet, none, or a .weights.h5, .h5 or .keras file"
        )
    return str(path)


def source(setting):
    """Short text that stands for a backbone's weights: two settings with the same text make the same features of the same pixels.

    Of a file it holds the digest of the bytes; Keras' imagenet weights are fixed by Keras' version, the network and the side.
    """
    if setting.weights in ("imagenet", "none"):
        return f"{setting.model}-{setting.weights}-{setting.side}-keras-{keras.__version__}"
    return f"{setting.model}-{hashlib.sha256(Path(setting.weights).read_bytes()).hexdigest()[:16]}-{setting.side}"


def build(model, side, weights="none"):
    """A backbone with its weights: pixels, float32 (n, side, side, 3) in 0..255, to features, float32 (n, d).

    model: a name in BACKBONES; weights: as in loop.Setting. With none it is ready to be trained from scratch, otherwise all of it is frozen.
    Raises BadWeights.
    """
    known = BACKBONES[model]
    if side < known.smallest:
        raise BadWeights(f"training.model: {model} needs {known.smallest} px or more, training.transform makes {side}")
    network = _network(known, side, weights)
    image = keras.Input((side, side, 3), name="image")
    x = image if known.scale == 1 else layers.Rescaling(known.scale, offset=known.offset)(image)
    x = network(x)
    # As in small_cnn, the maximum is there, too: a small object counts wherever it stands.
    x = layers.Concatenate(name="features")([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    made = keras.Model(image, x, name=NAME)
    if weights == "none":
        for layer in _normalisations(network):
            layer.momentum = 0.9  # short runs: with Keras' 0.99 or 0.999 the moving averages would not have settled
    elif weights.endswith(".keras"):
        _from_model(made, network, weights)
    made.trainable = weights == "none"
    return made


def _network(known, side, weights):
    """The network of keras.applications without its top, on its own scale, with its weights, unless they are in a .keras file."""
    make = getattr(keras.applications, known.network)
    shape = {"input_shape": (side, side, 3), "include_top": False}
    if weights == "imagenet":
        try:
            with _alone(), warnings.catch_warnings():
                # For a side that Keras has no weights for it takes those of 224 px, and warns: convolutions fit any side.
                warnings.filterwarnings("ignore", "`input_shape` is undefined or non-square")
                return make(weights="imagenet", **shape)
        except Exception as error:  # Keras raises a bare Exception where the download fails, OSError or ValueError where the file is half a file
            raise BadWeights(
                f"training.weights: imagenet: Keras could not get the weights of {known.network} for {side} px: {error}. This needs the network "
                f"once on each machine. Without it: fetch the file of that address elsewhere and put it into {_models()} under its own name, or name "
                "it as training.weights=<path>; if a file of that name lies there already, it is half a file: delete it. Or train from scratch: "
                "training.weights=none, or training.model=small_cnn"
            ) from error
    network = make(weights=None, **shape)
    if weights != "none" and not weights.endswith(".keras"):
        try:
            network.load_weights(weights)
        except (ValueError, OSError, KeyError) as error:
            raise BadWeights(
                f"training.weights: {weights} holds no weights of keras.applications.{known.network}(include_top=False), or is damaged: "
                f"{error}"
            ) from error
    return network


def _from_model(made, network, path):
    """Copies weights of a whole saved model: one of an earlier run (keras/model.keras), or a keras.applications network without its top."""
    try:
        loaded = keras.models.load_model(path, compile=False)
    except (ValueError, OSError, KeyError, TypeError, zipfile.BadZipFile) as error:
        raise BadWeights(f"training.weights: {path} is no Keras model, or is damaged: {error}") from error
    inside = [layer for layer in loaded.layers if layer.name == NAME]
    given, wanted = (inside[0], made) if inside else (loaded, network)
    shapes = [[tuple(weight.shape) for weight in model.weights] for model in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise BadWeights(
            f"training.weights: {path} holds another network than {network.name} without its top: {len(shapes[0])} arrays of weights, "
            f"{len(shapes[1])} expected{'' if len(shapes[0]) != len(shapes[1]) else ' of other shapes'}"
        )
    wanted.set_weights(given.get_weights())


def _models():
    return Path(os.environ.get("KERAS_HOME", Path.home() / ".keras"), "models")


@contextlib.contextmanager
def _alone():
    """One process of a machine at a time: ranks that start together would read the file that one of them is still downloading."""
    _models().mkdir(parents=True, exist_ok=True)
    with open(_models() / ".lakevision.lock", "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _normalisations(network):
    return [layer for layer in network.layers if isinstance(layer, layers.BatchNormalization)]


def thaw(backbone, count):
    """Lets the last count layers of a backbone's network be trained, but for batch normalisation. It changes the backbone in place.

    A functional model passes training=True on to all layers, whatever they were called with; what keeps batch normalisation in inference mode is
    that it is not trainable. Its averages come from a million photographs, and a few batches of 16 would spoil them.
    """
    network = next(layer for layer in backbone.layers if isinstance(layer, keras.Model))
    backbone.trainable = True
    for layer in network.layers[: max(0, len(network.layers) - count)] + _normalisations(network):
        layer.trainable = False


def features(network, pixels):
    """Features, float32 (n, d), of uint8 pixels (n, side, side, 3), on the network's own side. network: of build(), or a loop.Setting."""
    import tensorflow as tf

    network = network if isinstance(network, keras.Model) else build(network.model, network.side, network.weights)
    forward = tf.function(lambda batch: network(tf.cast(batch, tf.float32), training=False), reduce_retracing=True)
    made = [forward(pixels[start : start + BATCH]).numpy() for start in range(0, len(pixels), BATCH)]
    return np.concatenate(made) if made else np.zeros((0, network.output_shape[-1]), np.float32)


def kept(cache, setting, side):
    """One side of a cache.Cache as features: feed.Arrays whose pixels are float32 (n, d), in the order of feed.load().

    Computed once for a cache and the weights (see source), then kept in this process and as .npy files in the cache's folder, which all ranks and
    trials see. Call it on the driver first: what comes after finds the files. Raises BadWeights.
    """
    folder = Path(cache.folder, "features")
    stem = f"{source(setting)}-{side}"
    with _one_at_a_time:
        key = str(folder / stem)
        if key not in _kept:
            if len(_kept) >= 6:  # three sides of two backbones: more would be an old cache's
                _kept.clear()
            _kept[key] = _read(folder, stem) or _compute(cache, setting, side, folder, stem)
        return _kept[key]


def _read(folder, stem):
    paths = [folder / f"{stem}.{part}.npy" for part in ("keys", "targets", "features")]
    if not paths[2].exists():
        return None
    keys, targets, made = (np.load(path, allow_pickle=False) for path in paths)
    return feed.Arrays(made, targets, keys.tolist())


def _compute(cache, setting, side, folder, stem):
    arrays = feed.load(cache, side)
    found = replace(arrays, pixels=features(setting, arrays.pixels))
    folder.mkdir(exist_ok=True)
    # Features last: where they are, all is there.
    for part, array in (("keys", np.array(found.keys)), ("targets", found.targets), ("features", found.pixels)):
        partial = folder / f"{stem}.{uuid.uuid4().hex[:8]}.part"
        with open(partial, "wb") as file:
            np.save(file, array)
        os.replace(partial, folder / f"{stem}.{part}.npy")
    return found


def head(count, classes, dropout, seed):
    """From features, float32 (n, count), to probabilities, float32 (n, classes): a dropout and one dense layer, drawn from the seed."""
    keras.utils.set_random_seed(seed)
    given = keras.Input((count,), name="features")
    x = layers.Dropout(dropout)(given)
    return keras.Model(
        given, layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")(x), name="head"
    )


def joined(backbone, top):
    """One network of a backbone and a head: pixels, float32 (n, side, side, 3) in 0..255, to probabilities. Both are shared with it, not copied."""
    image = keras.Input(backbone.input_shape[1:], name="image")
    return keras.Model(image, top(backbone(image)), name=f"{NAME}_and_head")


def fit_head(train, validation, setting, train_network, on_epoch=None):
    """Trains the head of a Setting on features, all that a trial with a frozen backbone needs: (head, Result with the head's weights).

    train, validation: feed.Arrays of features, as of kept(); train_network(train, validation, setting, network, on_epoch) -> Result: the training
    loop, which is given a network instead of building one. Nothing is augmented: the features are those of the photographs as they are.
    """
    top = head(train.pixels.shape[1], setting.classes, setting.dropout, setting.seed)
    return top, train_network(train, validation, replace(setting, augment=False, swap=0.0), top, on_epoch)


def fit(train, validation, setting, train_network, on_epoch=None, features_of=None):
    """Trains a Setting whose backbone begins frozen: the head on features, then the last layers of the backbone with it.

    train, validation: feed.Arrays of pixels; features_of: the same two sides of kept(), computed here if None; train_network: as in fit_head.
    Returns a Result whose weights are those of the joined network and whose history holds both phases. Fine-tuning augments, the head's phase does
    not. With setting.swap the photographs change each time, so there the frozen phase runs on pixels, through the whole network.
    """
    base = build(setting.model, setting.side, setting.weights)
    if setting.swap:
        whole = joined(base, head(base.output_shape[-1], setting.classes, setting.dropout, setting.seed))
        result = train_network(train, validation, setting, whole, on_epoch)
    else:
        placements = features_of or [replace(side, pixels=features(base, side.pixels)) for side in (train, validation)]
        top, result = fit_head(*placements, setting, train_network, on_epoch)
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
