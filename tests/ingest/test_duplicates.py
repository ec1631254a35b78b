"""Exact and near copies: across batches, guarded by brightness, and no hash within 4 bits is missed."""

import hashlib
import io
import random

from PIL import Image

from device.simulation import porch
from lakevision.ingest import image_statistics
from lakevision.ingest.duplicates import HASH_BITS, Seen
from lakevision.ingest.quality import NEAR_BITS


def digest(text):
    return hashlib.sha256(str(text).encode()).hexdigest()


def flipped(value, bits, rng):
    for bit in rng.sample(range(HASH_BITS), bits):
        value ^= 1 << bit
    return value


def test_same_bytes_return_the_first_copy():
    seen = Seen(["old"], [digest("a")[:16]], [5], [0.5], [True])
    assert seen.look("b", digest("a"), 5, 0.5) == ("old", None, None)
    assert seen.look("c", digest("c"), 0x3FF << 20, 0.5) == (None, None, None)
    assert seen.look("d", digest("c"), 0x3FF << 20, 0.5) == ("c", None, None)


def test_near_copy_returns_the_nearest_first_copy():
    rng = random.Random(1)
    base = rng.getrandbits(HASH_BITS)
    seen = Seen(["old"], [digest("a")[:16]], [base], [0.5], [True])
    near = flipped(base, 3, rng)
    assert seen.look("b", digest("b"), near, 0.55) == (None, "old", 3)
    # A near copy is not a first copy: a picture near to it, but not to the first copy, is a new scene.
    far = near
    for bit in [bit for bit in range(HASH_BITS) if not (near ^ base) >> bit & 1][:2]:
        far ^= 1 << bit
    assert (far ^ base).bit_count() == 5
    assert seen.look("c", digest("c"), far, 0.5) == (None, None, None)
    assert seen.look("d", digest("d"), far ^ 1, 0.5)[1] in ("c", "old")


def test_day_and_night_of_one_scene_are_not_copies():
    seen = Seen()
    assert seen.look("day", digest(1), 77, 0.6) == (None, None, None)
    assert seen.look("night", digest(2), 77, 0.3) == (None, None, None)
    assert seen.look("dusk", digest(3), 77, 0.32) == (None, "night", 0)


def test_bands_find_every_hash_within_near_bits():
    """2,000 known and 1,500 new hashes give the same distances as a comparison of all pairs.

    Half of the new hashes differ from a known hash in 0 to 6 bits.
    """
    rng = random.Random(2)
    known = [rng.getrandbits(HASH_BITS) for _ in range(2000)]
    seen = Seen(
        [f"k{index}" for index in range(2000)],
        [digest(f"k{index}")[:16] for index in range(2000)],
        known,
        [0.5] * 2000,
        [True] * 2000,
    )
    leads = dict(zip((f"k{index}" for index in range(2000)), known))
    found = 0
    for index in range(1500):
        value = (
            flipped(rng.choice(list(leads.values())), rng.randrange(7), rng)
            if index % 2
            else rng.getrandbits(HASH_BITS)
        )
        nearest = min((value ^ other).bit_count() for other in leads.values())
        _, path, bits = seen.look(f"n{index}", digest(f"n{index}"), value, 0.5)
        assert bits == (nearest if nearest <= NEAR_BITS else None)
        if path is None:
            leads[f"n{index}"] = value
        else:
            assert (leads[path] ^ value).bit_count() == bits
            found += 1
    assert found > 400


def test_copies_have_near_hashes_and_a_package_does_not():
    """A photograph saved again or made smaller is a near copy; with a package it is another picture."""
    scenes = porch.plan(2, size=(300, 300))
    image = porch.picture(scenes[0])
    _, original = image_statistics.of(image)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=60)
    for copy in (Image.open(out).convert("RGB"), image.resize((200, 200)), image.point(lambda value: value * 9 // 10)):
        assert (image_statistics.of(copy)[1] ^ original).bit_count() <= NEAR_BITS
    boxed = image.copy()
    boxed.paste((200, 150, 90), (90, 170, 210, 280))
    assert (image_statistics.of(boxed)[1] ^ original).bit_count() > NEAR_BITS
