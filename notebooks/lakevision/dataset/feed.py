"""Feeds TensorFlow from the Petastorm cache: from memory if a split fits, else streamed by row group.

In both cases each rank gets the same number of batches in each epoch, all batches have the same size, and the seed
fixes their order. Pixels stay uint8, as in the cache. Changes from epoch to epoch (loop.augment) are part of
TensorFlow's graph.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from device.model import transform
from lakevision.dataset import row_group_reader

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache

BUFFERED = 4  # row groups in a stream's shuffle buffer: labels are dealt out evenly, so more would not mix better
AHEAD = 4  # batches made ready while TensorFlow computes


@dataclass
class Arrays:
    """Images of one split in memory.

    pixels: uint8 (n, image_size, image_size, 3); targets: int32 (n,); keys: n SHA-256 digests. All have the same order.
    """

    pixels: np.ndarray
    targets: np.ndarray
    keys: list

    def __len__(self) -> int:
        return len(self.targets)

    def epoch(
        self, batch_size: int, seed: int, epoch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields one rank's batches of one epoch.

        A batch is uint8 (batch_size, image_size, image_size, 3) and int32 (batch_size,).
        """
        for index in batches(len(self), batch_size, seed, epoch, rank, ranks):
            yield self.pixels[index], self.targets[index]


@dataclass
class Stream:
    """Images of one split (`side`) that are read from the cache in each epoch.

    A rank reads its own row groups only. The ranks' shares differ by a few images at most.
    """

    cache: Cache
    side: str

    def __len__(self) -> int:
        return self.cache.counts[self.side]

    @property
    def targets(self) -> np.ndarray:
        """int32 (n,): the targets sorted by class, for callers that need only their counts."""
        return np.repeat(np.arange(len(self.cache.classes), dtype=np.int32), self.cache.labels[self.side])

    def epoch(
        self, batch_size: int, seed: int, epoch: int, rank: int = 0, ranks: int = 1
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields batches as Arrays.epoch() does. Raises ValueError if the rank has no image.

        Rows are drawn from a buffer of BUFFERED row groups. A rank that has read all of its images repeats its newest
        batch.
        """
        return ahead(self._epoch(batch_size, np.random.default_rng((seed, epoch, rank)), rank, ranks))

    def _epoch(
        self, batch_size: int, random: np.random.Generator, rank: int, ranks: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        buffer = _Buffer(_groups(self.cache, self.side, rank, ranks), transform.image_size(self.cache.transform))
        newest: tuple[np.ndarray, np.ndarray] | None = None
        for _ in range(steps_of(len(self), batch_size, ranks)):
            parts: list[tuple[np.ndarray, np.ndarray]] = []
            missing = batch_size
            while missing:
                if len(buffer) < batch_size:
                    buffer.refill(random)
                if not len(buffer):  # all images are read, but the ranks must make equally many steps
                    if newest is None:
                        raise ValueError(
                            f"{self.cache.folder}/split={self.side}: rank {rank} of {ranks} has no image; "
                            "use fewer ranks"
                        )
                    buffer.repeat(newest)
                parts.append(buffer.take(missing))
                missing -= len(parts[-1][1])
            newest = parts[0] if len(parts) == 1 else _joined(parts)
            yield newest


def _joined(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([targets for _, targets in parts])


class _Buffer:
    """The shuffle buffer of a stream: rows of a few row groups in random order.

    groups: iterator of Arrays; image_size: pixels of a side.
    """

    def __init__(self, groups: Iterator[Arrays], image_size: int):
        self.groups, self.exhausted, self.start = groups, False, 0
        self.pixels = np.empty((0, image_size, image_size, 3), np.uint8)
        self.targets = np.empty(0, np.int32)

    def __len__(self) -> int:
        return len(self.targets) - self.start

    def refill(self, random: np.random.Generator) -> None:
        """Adds up to BUFFERED row groups and shuffles all rows. Leaves the rows as they are if no group is left."""
        if self.exhausted:
            return
        pixels, targets = [self.pixels[self.start :]], [self.targets[self.start :]]
        while not self.exhausted and len(pixels) <= BUFFERED:
            group = next(self.groups, None)
            if group is None:
                self.exhausted = True
            else:
                pixels.append(group.pixels)
                targets.append(group.targets)
        self.pixels, self.targets, self.start = np.concatenate(pixels), np.concatenate(targets), 0
        order = random.permutation(len(self.targets))
        self.pixels, self.targets = self.pixels[order], self.targets[order]

    def repeat(self, batch: tuple[np.ndarray, np.ndarray]) -> None:
        """Puts the rows of a batch into the empty buffer."""
        (self.pixels, self.targets), self.start = batch, 0

    def take(self, most: int) -> tuple[np.ndarray, np.ndarray]:
        """Removes the next rows, at most `most`: (pixels, targets)."""
        chosen = slice(self.start, self.start + most)
        self.start = min(self.start + most, len(self.targets))
        return self.pixels[chosen], self.targets[chosen]


def opened(cache: Cache, split: str, memory_mb: float, say: Callable[[str], Any] = print) -> Arrays | Stream:
    """One split of a cache: Arrays if its pixels take at most memory_mb, else a Stream. say: prints the choice."""
    size = cache.bytes(split) / 1e6
    in_memory = size <= memory_mb
    how = "in memory" if in_memory else "streamed from the cache"
    say(f"{split}: {cache.counts[split]} images, {size:.0f} MB, {how} (training.memory_mb: {memory_mb})")
    return load(cache, split) if in_memory else Stream(cache, split)


def load(cache: Cache, split: str) -> Arrays:
    """Reads one split of a cache into memory, in a repeatable order. Raises ValueError if rows are missing."""
    size = transform.image_size(cache.transform)
    pixels, targets, keys = [np.empty((0, size, size, 3), np.uint8)], [np.empty(0, np.int32)], []
    for group in _groups(cache, split) if cache.counts[split] else ():
        pixels.append(group.pixels)
        targets.append(group.targets)
        keys.extend(group.keys)
    if len(keys) != cache.counts[split]:
        raise ValueError(
            f"cache {cache.folder}/split={split} holds {len(keys)} images, its manifest says {cache.counts[split]}: "
            "delete the folder, then run again"
        )
    order = np.argsort(keys)  # Spark's part files are in no fixed order
    return Arrays(np.concatenate(pixels)[order], np.concatenate(targets)[order], [keys[index] for index in order])


def exact(cache: Cache, split: str, rank: int = 0, ranks: int = 1) -> Iterator[Arrays]:
    """Yields one rank's images by row group. All ranks together yield each image of the split once."""
    return _groups(cache, split, rank, ranks)


def _groups(cache: Cache, split: str, rank: int = 0, ranks: int = 1) -> Iterator[Arrays]:
    """Yields one rank's row groups of one split."""
    return (Arrays(*group) for group in row_group_reader.read(cache, split, rank, ranks))


def ahead(batches: Iterable[Any], depth: int = AHEAD) -> Iterator[Any]:
    """Yields the items of an iterable that a thread makes ready, at most `depth` ahead.

    Raises here, in the reader's thread, any exception of the iterable.
    """
    ready: queue.Queue = queue.Queue(depth)
    end, stop = object(), threading.Event()

    def put(item: tuple[Any, BaseException | None]) -> None:
        while not stop.is_set():
            try:
                return ready.put(item, timeout=0.2)
            except queue.Full:
                continue

    def work() -> None:
        try:
            for batch in batches:
                put((batch, None))
                if stop.is_set():
                    return
            put((end, None))
        except BaseException as error:  # else the exception would be lost and the reader would wait for ever
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


def steps_of(count: int, batch_size: int, ranks: int) -> int:
    """Batches of each rank in one epoch: enough for all images, and the same number on each rank."""
    return -(-count // (batch_size * ranks))


def batches(count: int, batch_size: int, seed: int, epoch: int, rank: int = 0, ranks: int = 1) -> np.ndarray:
    """The indices of one rank's batches in one epoch: int (steps, batch_size), shuffled differently in each epoch.

    All ranks draw the same permutation and take every ranks-th place of each global batch, so the global batches are
    the same for any number of ranks. The last batch is filled up from the permutation's start: a rank with fewer steps
    would leave the other ranks waiting.
    """
    order = np.random.default_rng((seed, epoch)).permutation(count)
    whole = batch_size * ranks
    steps = steps_of(count, batch_size, ranks)
    order = np.resize(order, steps * whole)
    return order.reshape(steps, whole)[:, rank::ranks]
