"""Augmentation of a batch: geometry, light, colour and noise, drawn for each image."""

from typing import Any


def augment(images: Any, random: Any, noise: float = 0.0) -> Any:
    """Flips, moves by up to a tenth, scales by up to 15 %, turns by up to 6 degrees, changes light and colour.

    images: float32 tensor (n, side, side, 3) in 0..255. random: tf.random.Generator. noise: standard deviation in grey
    values of noise to add, 0 for none. Returns a tensor of the same shape, clipped to 0..255.
    """
    import tensorflow as tf

    count, size = tf.shape(images)[0], tf.cast(tf.shape(images)[1], tf.float32)
    flip = tf.where(random.uniform([count]) < 0.5, -1.0, 1.0)
    scale = random.uniform([count], 0.85, 1.15)
    turn = random.uniform([count], -0.1, 0.1)
    cos, sin = scale * tf.cos(turn), scale * tf.sin(turn)
    move = random.uniform([count, 2], -0.1, 0.1) * size
    centre = (size - 1) / 2
    zero = tf.zeros([count])
    # One projective transform for all: (x, y) of the output -> (a x + b y + c, d x + e y + f) of the input.
    x_shift = centre - (flip * cos - sin) * centre + move[:, 0]
    y_shift = centre - (flip * sin + cos) * centre + move[:, 1]
    matrix = tf.stack([flip * cos, -sin, x_shift, flip * sin, cos, y_shift, zero, zero], 1)
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
