"""From the Petastorm cache into TensorFlow: all in memory where it fits, else streamed row group by row group.

Both give each rank the same number of batches an epoch, all of the same size, in an order that the seed fixes. Pixels come as they lie in the cache,
uint8; what changes them from epoch to epoch (loop.augment) is part of TensorFlow's graph.
"""

import queue
import threading
import warnings
from dataclasses import dataclass

import numpy as np

from device.model import transform

BUFFERED = 4  # row groups that a stream draws from: with labels dealt out evenly, more would mix no better
AHEAD = 4  # batches made ready while TensorFlow computes


@dataclass
class Arrays:
    """Images of one side in memory. pixels: uint8 (n, side, side, 3); targets: int32 (n,); keys: n SHA-256 digests, in the order of the rows."""

    pixels: np.ndarray
    targets: np.ndarray
    keys: list

    def __len__(self):
        return len(self.targets)

    def epoch(self, batch_size, seed, epoch, rank=0, ranks=1):
        """Yields one rank's batches of one epoch: (uint8 (batch_size, side, side, 3), int32 (batch_size,))."""
        for index in batches(len(self), batch_size, seed, epoch, rank, ranks):
            yield self.pixels[index], self.targets[index]


@dataclass
class Stream:
    """Images of one side that are read from the cache each epoch. A rank sees its own row groups only; they are equal but for a few images."""

    cache: object
    side: str

    def __len__(self):
        return self.cache.counts[self.side]

    @property
    def targets(self):
        """int32 (n,): the targets, each class's together; for what needs their counts only."""
        return np.repeat(np.arange(len(self.cache.classes), dtype=np.int32), self.cache.labels[self.side])

    def epoch(self, batch_size, seed, epoch, rank=0, ranks=1):
        """As Arrays.epoch(). Rows are drawn from a buffer of BUFFERED row groups; the last batch is filled up with rows seen before."""
        return ahead(self._epoch(batch_size, np.random.default_rng((seed, epoch, rank)), rank, ranks))

    def _epoch(self, batch_size, random, rank, ranks):
        steps, size = steps_of(len(self), batch_size, ranks), transform.image_size(self.cache.transform)
        groups = _groups(self.cache, self.side, rank, ranks)
        pixels, targets = np.empty((0, size, size, 3), np.uint8), np.empty(0, np.int32)
        more, start, seen = True, 0, None
        for _ in range(steps):
            taken = []
            while sum(len(part) for _, part in taken) < batch_size:
                if (
                    start == len(targets) or more and len(targets) - start < batch_size
                ):  # the buffer runs dry: take in more, draw anew
                    parts = [(pixels[start:], targets[start:])]
                    while more and len(parts) <= BUFFERED:
                        group = next(groups, None)
                        more = group is not None
                        parts += [(group.pixels, group.targets)] if more else []
                    pixels, targets = (np.concatenate(column) for column in zip(*parts))
                    order, start = random.permutation(len(targets)), 0
                    pixels, targets = pixels[order], targets[order]
                if start == len(targets):  # all seen: the ranks must make equally many steps
                    if seen is None:
                        raise ValueError(
                            f"{self.cache.folder}/split={self.side}: rank {rank} of {ranks} has no image; use fewer ranks"
                        )
                    pixels, targets, start = *seen, 0
                wanted = batch_size - sum(len(part) for _, part in taken)
                taken.append((pixels[start : start + wanted], targets[start : start + wanted]))
                start += wanted if start + wanted < len(targets) else len(targets) - start
            batch = tuple(np.concatenate(column) if len(taken) > 1 else column[0] for column in zip(*taken))
            seen = batch
            yield batch


def opened(cache, side, memory_mb, say=print):
    """One side of a cache.Cache: Arrays where its pixels take at most memory_mb, else a Stream. say: is told which."""
    size = cache.bytes(side) / 1e6
    if size <= memory_mb:
        say(f"{side}: {cache.counts[side]} images, {size:.0f} MB, in memory (training.memory_mb: {memory_mb})")
        return load(cache, side)
    say(
        f"{side}: {cache.counts[side]} images, {size:.0f} MB, streamed from the cache (training.memory_mb: {memory_mb})"
    )
    return Stream(cache, side)


def load(cache, side):
    """Reads one side of a cache.Cache into memory, in a repeatable order. Returns Arrays; raises ValueError if rows are missing."""
    size = transform.image_size(cache.transform)
    pixels, targets, keys = [np.empty((0, size, size, 3), np.uint8)], [np.empty(0, np.int32)], []
    for group in _groups(cache, side) if cache.counts[side] else ():
        pixels.append(group.pixels)
        targets.append(group.targets)
        keys.extend(group.keys)
    if len(keys) != cache.counts[side]:
        raise ValueError(
            f"cache {cache.folder}/split={side} holds {len(keys)} images, its manifest says {cache.counts[side]}: "
            "delete the folder, then run again"
        )
    order = np.argsort(keys)  # Spark's part files are in no fixed order
    return Arrays(np.concatenate(pixels)[order], np.concatenate(targets)[order], [keys[index] for index in order])


def exact(cache, side, rank=0, ranks=1):
    """Yields Arrays, one row group at a time: each image of one side once, over all ranks together."""
    return _groups(cache, side, rank, ranks)


def _groups(cache, side, rank=0, ranks=1):
    """Yields one rank's row groups of one side as Arrays, through petastorm."""
    make_batch_reader = _petastorm()
    size = transform.image_size(cache.transform)
    shard = {"cur_shard": rank, "shard_count": ranks} if ranks > 1 else {}
    # One worker and no shuffling of row groups: the order is the same each time, and for small images it is also the fastest.
    with make_batch_reader(
        cache.url(side), num_epochs=1, workers_count=1, shuffle_row_groups=False, results_queue_size=2, **shard
    ) as reader:
        for group in reader:
            pixels = np.frombuffer(b"".join(group.pixels), np.uint8).reshape(-1, size, size, 3)
            yield Arrays(pixels, np.asarray(group.target, np.int32), list(group.sha256))


def _petastorm():
    """petastorm.make_batch_reader, with its 20 deprecation warnings a call kept quiet: they are petastorm's, on a pinned pyarrow."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")
    from petastorm import make_batch_reader

    return make_batch_reader


def ahead(batches, depth=AHEAD):
    """Yields what an iterator yields, made ready in a thread of its own, at most depth ahead. What it raises is raised here."""
    ready, end, stop = queue.Queue(depth), object(), threading.Event()

    def put(item):
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work():
        try:
            for batch in batches:
                put((batch, None))
                if stop.is_set():
                    return
            put((end, None))
        except (
            BaseException
        ) as error:  # handed over: a thread's exception would be lost, and the reader of the queue would wait for ever
            put((end, error))

    thread = threading.Thread(target=work, daemon=True, name="feed")
    thread.start()
    try:
        while True:
            batch, error = ready.get()
            if error is not None:
                raise error
            if batch is end:
                return
            yield batch
    finally:
        stop.set()
        thread.join()


def steps_of(count, batch_size, ranks):
    """Batches that each rank takes in one epoch: all images are seen, and no rank is a step short of the others."""
    return -(-count // (batch_size * ranks))


def batches(count, batch_size, seed, epoch, rank=0, ranks=1):
    """Index arrays of one epoch for one rank: the same number on each, all images used, shuffled anew each epoch.

    All ranks draw the same permutation and take every ranks-th place of each global batch, so that N ranks see the same
    global batches whatever N. The last batch is filled up from the permutation's start: a rank short of a step would leave the others waiting.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    whole = batch_size * ranks
    steps = steps_of(count, batch_size, ranks)
    order = np.resize(order, steps * whole)
    return order.reshape(steps, whole)[:, rank::ranks]
