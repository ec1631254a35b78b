"""Row groups through petastorm and through pyarrow: the same content in the same order."""

from importlib.metadata import version

import numpy as np
import pytest

from lakevision.dataset import row_group_reader
from lakevision.dataset.split import SPLIT_NAMES

PYARROW = int(version("pyarrow").partition(".")[0])


@pytest.mark.skipif(PYARROW >= 15, reason="petastorm needs pyarrow below 15")
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_petastorm_and_pyarrow_read_equal_row_groups(cached, ranks):
    assert row_group_reader.read(cached[3], "train").__name__ == "with_petastorm"  # the reader that training uses
    for split in SPLIT_NAMES:
        for rank in range(ranks):
            if cached[3].groups[split] < ranks:
                continue  # petastorm refuses more shards than row groups
            first = list(row_group_reader.with_petastorm(cached[3], split, rank, ranks))
            second = list(row_group_reader.with_pyarrow(cached[3], split, rank, ranks))
            assert len(first) == len(second) > 0
            for (pixels, targets, keys), (others, other_targets, other_keys) in zip(first, second, strict=True):
                assert np.array_equal(pixels, others) and pixels.dtype == others.dtype == np.uint8
                assert np.array_equal(targets, other_targets) and targets.dtype == other_targets.dtype == np.int32
                assert keys == other_keys


def test_pyarrow_reads_each_image_once_over_all_ranks(cached):
    built = cached[3]
    for split in SPLIT_NAMES:
        keys = [
            key
            for rank in range(2)
            for *_, group in row_group_reader.with_pyarrow(built, split, rank, 2)
            for key in group
        ]
        assert len(keys) == len(set(keys)) == built.counts[split]
