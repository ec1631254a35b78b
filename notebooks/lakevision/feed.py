"""From the Petastorm cache into TensorFlow."""

import warnings
from dataclasses import dataclass

import numpy as np

from device import transform


@dataclass
class Arrays:
    """Images of one side in memory. pixels: uint8 (n, side, side, 3); targets: int32 (n,); keys: n SHA-256 digests, in the order of the rows."""

    pixels: np.ndarray
    targets: np.ndarray
    keys: list

    def __len__(self):
        return len(self.targets)


def load(cache, side):
    """Reads one side of a cache.Cache through petastorm, in a repeatable order. Returns Arrays; raises ValueError if rows are missing."""
    make_batch_reader = _petastorm()
    size = transform.side(cache.transform)
    pixels, targets, keys = [], [], []
    # One worker and no shuffling of row groups: the order is the same each time, and for small images it is also the fastest.
    with make_batch_reader(cache.url(side), num_epochs=1, workers_count=1, shuffle_row_groups=False) as reader:
        for group in reader:
            pixels.append(np.frombuffer(b"".join(group.pixels), np.uint8).reshape(-1, size, size, 3))
            targets.append(np.asarray(group.target, np.int32))
            keys.extend(group.sha256)
    if len(keys) != cache.counts[side]:
        raise ValueError(f"cache {cache.folder}/{side} holds {len(keys)} images, its manifest says {cache.counts[side]}: delete the folder, then run again")
    order = np.argsort(keys)  # Spark's part files are in no fixed order
    return Arrays(np.concatenate(pixels)[order], np.concatenate(targets)[order], [keys[index] for index in order])


def _petastorm():
    """petastorm.make_batch_reader, with its 20 deprecation warnings a call kept quiet: they are petastorm's, on a pinned pyarrow."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")
    from petastorm import make_batch_reader

    return make_batch_reader


def batches(count, batch_size, seed, epoch, rank=0, ranks=1):
    """Index arrays of one epoch for one rank: the same number on each, all images used, shuffled anew each epoch.

    All ranks draw the same permutation and take every ranks-th place of each global batch, so that N ranks see the same
    global batches whatever N. The last batch is filled up from the permutation's start: a rank short of a step would leave the others waiting.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    whole = batch_size * ranks
    steps = -(-count // whole)
    order = np.resize(order, steps * whole)
    return order.reshape(steps, whole)[:, rank::ranks]
