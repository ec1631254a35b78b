"""Reads a cache's row groups: through petastorm if pyarrow is old enough, else through pyarrow.

petastorm needs pyarrow below 15, and Spark 4 needs pyarrow 15 or later. Both readers give the same row groups in the
same order.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from device.model import transform
from lakevision.platform import runtime

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache

COLUMNS = ["pixels", "sha256", "target"]
Group = tuple[np.ndarray, np.ndarray, list]  # (pixels, targets, keys)


def read(cache: Cache, split: str, rank: int = 0, ranks: int = 1) -> Iterator[Group]:
    """Yields the row groups of one rank, each as (pixels, targets, keys).

    pixels: uint8 (n, image_size, image_size, 3), read-only; targets: int32 (n,); keys: n SHA-256 digests. The row
    groups of a split are numbered over its files in the order of their names. Rank r reads every ranks-th from r on.
    """
    reader = with_petastorm if runtime.petastorm_reads() else with_pyarrow
    return reader(cache, split, rank, ranks)


def with_petastorm(cache: Cache, split: str, rank: int = 0, ranks: int = 1) -> Iterator[Group]:
    """As read(), through petastorm."""
    # petastorm gives about 20 deprecation warnings a call, which concern the pinned pyarrow.
    warnings.filterwarnings("ignore", category=FutureWarning, module="petastorm")
    warnings.filterwarnings("ignore", category=DeprecationWarning, module="petastorm")
    from petastorm import make_batch_reader

    size = transform.image_size(cache.transform)
    shard = {"cur_shard": rank, "shard_count": ranks} if ranks > 1 else {}
    # One worker and unshuffled row groups: the order is always the same, and for small images it is also the fastest.
    with make_batch_reader(
        cache.url(split), num_epochs=1, workers_count=1, shuffle_row_groups=False, results_queue_size=2, **shard
    ) as reader:
        for group in reader:
            pixels = np.frombuffer(b"".join(group.pixels), np.uint8).reshape(-1, size, size, 3)
            yield pixels, np.asarray(group.target, np.int32), list(group.sha256)


def with_pyarrow(cache: Cache, split: str, rank: int = 0, ranks: int = 1) -> Iterator[Group]:
    """As read(), through pyarrow."""
    import pyarrow.parquet

    size, number = transform.image_size(cache.transform), 0
    for path in sorted(Path(cache.folder, f"split={split}").glob("[!._]*.parquet")):
        with pyarrow.parquet.ParquetFile(path) as file:
            for index in range(file.num_row_groups):
                if number % ranks == rank:
                    group = file.read_row_group(index, COLUMNS).combine_chunks()
                    pixels = _bytes(group["pixels"]).reshape(-1, size, size, 3)
                    targets = group["target"].to_numpy().astype(np.int32)
                    yield pixels, targets, group["sha256"].to_pylist()
                number += 1


def _bytes(column: Any) -> np.ndarray:
    """All bytes of a binary column without nulls, uint8, without a copy if the column is one chunk."""
    parts = []
    for chunk in column.chunks:
        _, offsets, data = chunk.buffers()
        offsets = np.frombuffer(offsets, np.int32)[chunk.offset : chunk.offset + len(chunk) + 1]
        parts.append(np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]])
    return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, np.uint8), *parts])
