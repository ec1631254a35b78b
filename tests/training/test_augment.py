"""Augmentation stays in range, follows its seed, and adds the noise that was asked for."""

import numpy as np
import tensorflow as tf

from lakevision.training.augment import augment

GREY = tf.fill([64, 24, 24, 3], 128.0)


def drawn(images, seed, noise=0.0):
    return augment(images, tf.random.Generator.from_seed(seed), noise).numpy()


def test_seed_fixes_the_augmentation():
    images = tf.constant(np.random.default_rng(1).uniform(0, 255, (4, 24, 24, 3)), tf.float32)
    assert np.array_equal(drawn(images, 3), drawn(images, 3)) and not np.array_equal(drawn(images, 3), drawn(images, 4))


def test_values_stay_in_range_and_shape():
    white = drawn(tf.fill([16, 24, 24, 3], 255.0), 1, noise=20.0)
    assert white.shape == (16, 24, 24, 3) and white.min() >= 0 and white.max() <= 255


def test_each_image_gets_its_own_light():
    assert np.unique(drawn(GREY, 5).mean((1, 2, 3)).round(3)).size == len(GREY)


def test_noise_has_the_given_deviation():
    assert drawn(GREY, 5).std((1, 2)).max() < 0.01
    assert abs(drawn(GREY, 5, noise=6.0).std((1, 2)).mean() - 6.0) < 0.3
