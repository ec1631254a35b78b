"""Parity: how differences between the serving paths are measured, and the unusual files that all paths get."""

import io

import numpy as np
import pytest
from PIL import Image
from release_cases import AGREED, changed

from device.model import transform
from device.simulation import porch
from lakevision.release import parity


def test_refusal_by_one_path_is_an_infinite_difference():
    assert AGREED.exact == 0 and AGREED.agreement("REST") == 1
    assert changed("REST", 0, None).exact == np.inf and changed("REST", 0, None).agreement("REST") == 0.5
    assert changed("REST", 2, np.array([1.0, 0.0])).apart("REST").tolist() == [0, 0, np.inf]
    # float16 and int8 may differ: they are not among the exact paths.
    assert changed("LiteRT int8", 0, np.array([0.8, 0.2])).exact == 0


def test_unusual_files_of_a_large_photograph_fit_into_a_request():
    noise = io.BytesIO()
    Image.fromarray(np.random.default_rng(1).integers(0, 255, (3040, 4056, 3), np.uint8)).save(
        noise, "JPEG", quality=85
    )
    assert {name: len(data) for name, data in parity.hard(noise.getvalue()) if len(data) > 16e6} == {}


def test_unusual_files_are_decodable_except_the_last_two():
    photograph = porch.jpeg(porch.plan(1, size=(64, 64))[0])
    files = parity.hard(photograph)
    assert tuple(name for name, _ in files) == parity.HARD
    for name, data in files[:-2]:
        assert len(transform.pixels(data, "decode|upright|rgb|resize(32)")) == 32 * 32 * 3, name
    for _, data in files[-2:]:
        with pytest.raises(transform.BadImage):
            transform.pixels(data, "decode|upright|rgb|resize(32)")
