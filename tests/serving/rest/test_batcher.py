"""Waiting images share a call of the network, a failure concerns one image, and stop() finishes the queue."""

import asyncio
import threading
import time

import pytest

from lakevision.serving.rest import batcher


def scored(images):
    """Stands in for PhotoModel.rows. Fails if a batch holds b"bad"."""
    if b"bad" in images:
        raise ValueError("bad image")
    return [image.decode() for image in images]


def ask(batches, images, rows=scored):
    """Returns the outcome, a row or an exception, of each image asked for at the same time."""

    async def outcomes():
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(batches.ask(loop, rows, image) for image in images), return_exceptions=True)

    return asyncio.run(outcomes())


def threads():
    return {thread for thread in threading.enumerate() if thread.name.startswith("batch-")}


@pytest.fixture
def stopped():
    """Function that creates a Batcher. All are stopped at the end."""
    made = []

    def make(count):
        made.append(batcher.Batcher(count))
        return made[-1]

    yield make
    for batches in made:
        batches.stop()


@pytest.mark.parametrize("count", [1, 3])
def test_each_image_gets_its_own_row(stopped, count):
    images = [str(number).encode() for number in range(100)]
    assert ask(stopped(count), images) == [image.decode() for image in images]


def test_waiting_images_share_batches_of_at_most_16(stopped):
    sizes, busy = [], threading.Event()

    def slow(images):
        sizes.append(len(images))
        busy.wait(0.2)  # the other images arrive meanwhile
        return scored(images)

    assert ask(stopped(1), [b"x"] * 40, slow) == ["x"] * 40
    assert sum(sizes) == 40 and max(sizes) == batcher.MOST and len(sizes) <= 5


def test_failing_image_fails_alone(stopped):
    good, bad, other = ask(stopped(1), [b"a", b"bad", b"b"])
    assert (good, other) == ("a", "b") and isinstance(bad, ValueError)


def test_images_for_different_versions_are_not_mixed(stopped):
    def loud(images):
        return [image.decode().upper() for image in images]

    async def both(batches):
        loop = asyncio.get_running_loop()
        return await asyncio.gather(*(batches.ask(loop, rows, b"a") for rows in (scored, loud) * 20))

    assert asyncio.run(both(stopped(2))) == ["a", "A"] * 20


def test_cancelled_request_does_not_disturb_the_others(stopped):
    async def two(batches):
        loop = asyncio.get_running_loop()
        late, kept = batches.ask(loop, scored, b"late"), batches.ask(loop, scored, b"kept")
        late.cancel()
        return await kept

    assert asyncio.run(two(stopped(1))) == "kept"


def test_stop_finishes_waiting_images_and_ends_the_threads():
    before, batches = threads(), batcher.Batcher(2)
    started = threads() - before

    async def stop_with_images_waiting():
        loop = asyncio.get_running_loop()
        futures = [batches.ask(loop, scored, b"x") for _ in range(50)]
        batches.stop()
        return await asyncio.gather(*futures)

    assert asyncio.run(stop_with_images_waiting()) == ["x"] * 50
    deadline = time.monotonic() + 5
    for thread in started:
        thread.join(max(0, deadline - time.monotonic()))
    assert len(started) == 2 and not any(thread.is_alive() for thread in started)
