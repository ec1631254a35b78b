"""The feed: equal steps on every rank, every image in each epoch, the same order for the same seed."""

from dataclasses import replace

import numpy as np
import pytest

from lakevision.dataset import feed


@pytest.mark.parametrize("size", [1, 2])
def test_stream_gives_equal_steps_and_repeats_its_order(cached, arrays, size):
    stream = feed.Stream(cached[3], "train")
    target = {pixels.tobytes(): target for pixels, target in zip(arrays["train"].pixels, arrays["train"].targets)}

    def epoch(number):
        return [
            [(pixels.tobytes(), targets.tolist()) for pixels, targets in stream.epoch(5, 1, number, rank, size)]
            for rank in range(size)
        ]

    first = epoch(0)
    assert {len(shard) for shard in first} == {feed.steps_of(len(stream), 5, size)} and first == epoch(0) != epoch(1)
    seen_images = set()
    for pixels, targets in sum(first, []):
        images = [pixels[start : start + 32 * 32 * 3] for start in range(0, len(pixels), 32 * 32 * 3)]
        assert len(images) == len(targets) == 5 and [target[image] for image in images] == targets
        seen_images.update(images)
    assert seen_images == set(target)


def test_rank_without_images_raises_an_error(cached):
    with pytest.raises(Exception, match="fewer ranks|shard"):
        list(feed.Stream(cached[3], "validation").epoch(4, 1, 0, rank=63, ranks=64))


def test_split_is_loaded_if_it_fits_and_the_choice_is_printed(cached):
    printed = []
    assert isinstance(feed.opened(cached[3], "train", 1, printed.append), feed.Arrays)
    assert isinstance(feed.opened(cached[3], "train", 0, printed.append), feed.Stream)
    assert "in memory" in printed[0] and "streamed" in printed[1]


def test_error_of_the_feed_thread_is_raised_in_the_reader():
    def broken():
        yield 1
        raise KeyError("row group")

    batches = feed.ahead(broken())
    assert next(batches) == 1
    with pytest.raises(KeyError, match="row group"):
        next(batches)


def test_loading_twice_gives_the_same_order(cached, arrays):
    again = feed.load(cached[3], "train")
    assert again.keys == arrays["train"].keys and np.array_equal(again.pixels, arrays["train"].pixels)


@pytest.mark.parametrize("count, batch, size", [(64, 8, 1), (64, 8, 2), (37, 8, 2), (5, 8, 3), (100, 7, 4)])
def test_batches_use_every_image_in_equal_steps(count, batch, size):
    shards = [feed.batches(count, batch, seed=1, epoch=0, rank=rank, ranks=size) for rank in range(size)]
    assert len({shard.shape for shard in shards}) == 1 and shards[0].shape[1] == batch
    assert set(np.concatenate([shard.ravel() for shard in shards])) == set(range(count))
    one = feed.batches(count, batch * size, seed=1, epoch=0)
    assert [sorted(row) for row in np.concatenate(shards, axis=1)] == [sorted(row) for row in one]
    assert not np.array_equal(one, feed.batches(count, batch * size, seed=1, epoch=1))


def test_missing_rows_raise_an_error(cached):
    built = cached[3]
    with pytest.raises(ValueError, match="its manifest says 9999"):
        feed.load(replace(built, counts={**built.counts, "test": 9999}), "test")
