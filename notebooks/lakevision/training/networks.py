"""The networks: float32 pixels in 0..255, (n, side, side, 3), to probabilities, (n, classes)."""

import keras
from keras import layers


def small_cnn(side: int, classes: int, width: int = 16, dropout: float = 0.2) -> keras.Model:
    """Five convolution blocks and a global maximum, so that a small object counts at any place.

    The network has 36k parameters at width 16 and takes 9 million multiplications at 96 px. Scaling the pixels is its
    first layer, so the transform ends in plain uint8 on every path.
    """
    image = keras.Input((side, side, 3), name="image")
    x = layers.Rescaling(1 / 127.5, offset=-1)(image)
    for channels, stride in ((width, 2), (width, 2), (2 * width, 1), (2 * width, 2), (4 * width, 1)):
        x = layers.Conv2D(channels, 3, strides=stride, padding="same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)  # with 0.99 the averages would not settle in a short run
        x = layers.ReLU()(x)
    x = layers.Concatenate()([layers.GlobalMaxPooling2D()(x), layers.GlobalAveragePooling2D()(x)])
    x = layers.Dropout(dropout)(x)
    return keras.Model(image, layers.Dense(classes, activation="softmax", name="probabilities", dtype="float32")(x))


MODELS = {"small_cnn": small_cnn}


def build(name: str, side: int, classes: int, width: int, dropout: float, seed: int) -> keras.Model:
    """A network by its name in MODELS or backbone.BACKBONES, with all weights drawn from the seed.

    width: channels of small_cnn's first block; backbones ignore it.
    """
    from lakevision.training import backbone

    keras.utils.set_random_seed(seed)
    if name not in backbone.BACKBONES:
        return MODELS[name](side, classes, width=width, dropout=dropout)
    base = backbone.build(name, side)
    return backbone.joined(base, backbone.head(base.output_shape[-1], classes, dropout, seed))
