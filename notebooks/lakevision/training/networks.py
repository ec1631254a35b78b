"""The networks. All take float32 pixels in 0..255 of shape (n, side, side, 3) and give probabilities of shape (n, classes)."""

import keras
from keras import layers


def small_cnn(side, classes, width=16, dropout=0.2):
    """Five blocks and a max over the place: a small object counts wherever it stands. 36k parameters at width 16, 9 million multiplications at 96 px.

    The pixels' scale is the first layer, so that the transform ends in plain uint8 and every path agrees on it.
    """
    image = keras.Input((side, side, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    for channels, stride in ((width, 2), (width, 2), (2 * width, 1), (2 * width, 2), (4 * width, 1)):
        x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)  # short runs: 0.99 would not have settled
        x = layers.ReLU()(x)
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    x = layers.Dropout(dropout)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")(x))


MODELS = {"small_cnn": small_cnn}


def build(name, side, classes, width, dropout, seed):
    """A network by its name in MODELS or backbone.BACKBONES, with all weights drawn from the seed. width: of small_cnn only."""
    from lakevision.training import backbone

    keras.utils.set_random_seed(seed)
    if name not in backbone.BACKBONES:
        return MODELS[name](side, classes, width=width, dropout=dropout)
    base = backbone.build(name, side)
    return backbone.joined(base, backbone.head(base.output_shape[-1], classes, dropout, seed))
