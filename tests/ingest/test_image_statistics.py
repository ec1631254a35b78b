"""Statistics equal those of numpy on pictures of every kind."""

import numpy as np
import pytest
from PIL import Image

from device.simulation import porch
from lakevision.ingest import image_statistics

NOISE = np.random.default_rng(3).integers(0, 256, (41, 67, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(porch.picture(porch.plan(1, size=(97, 63))[0]), id="a porch"),
        pytest.param(Image.fromarray(NOISE), id="noise"),
        pytest.param(Image.new("RGB", (5, 4), (0, 128, 255)), id="flat"),
        pytest.param(Image.fromarray(NOISE[:1, :2]), id="two pixels"),
        pytest.param(Image.fromarray(NOISE[:1, :1]), id="one pixel"),
        pytest.param(Image.fromarray((NOISE > 127).astype(np.uint8) * 255), id="black and white"),
    ],
)
def test_moments_equal_those_of_numpy(image):
    found, _ = image_statistics.of(image)
    arrays = [np.asarray(band).ravel() for band in (*image.split(), image.convert("L"))]
    for band, values in zip([*found["bands"], found["luma"]], arrays, strict=True):
        counts = np.bincount(values, minlength=256)
        share = counts[counts > 0] / values.size
        assert (band["mean"], band["median"], band["stddev"]) == (
            pytest.approx(values.mean()),
            np.median(values),
            pytest.approx(values.std(), abs=1e-9),
        )
        assert (band["min"], band["max"]) == (values.min(), values.max()) and np.array_equal(band["histogram"], counts)
        assert band["entropy"] == pytest.approx(-(share * np.log2(share)).sum(), abs=1e-9) and 0 <= band["entropy"] <= 8
    assert [band["band"] for band in found["bands"]] == ["R", "G", "B"]
    assert (found["brightness"], found["contrast"]) == (
        pytest.approx(arrays[-1].mean() / 255),
        pytest.approx(arrays[-1].std() / 255, abs=1e-9),
    )


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5, 0.99, 1.0])
def test_percentile_equals_the_sorted_values(share):
    values = np.sort(NOISE[..., 0].ravel())
    assert (
        image_statistics.percentile(np.bincount(values, minlength=256), share)
        == values[int(np.ceil(share * values.size)) - 1]
    )


def test_statistics_of_a_porch_equal_those_of_numpy():
    image = porch.picture(porch.plan(1, size=(97, 63))[0])
    array = np.asarray(image)
    found, _ = image_statistics.of(image)
    for index, band in enumerate(found["bands"]):
        values = array[..., index]
        assert band["mean"] == pytest.approx(values.mean()) and band["stddev"] == pytest.approx(values.std())
        assert (band["min"], band["max"]) == (values.min(), values.max())
        assert abs(band["median"] - np.median(values)) <= 0.5
    luma = np.asarray(image.convert("L"))
    share = np.bincount(luma.ravel()) / luma.size
    assert found["entropy"] == pytest.approx(-(share[share > 0] * np.log2(share[share > 0])).sum())
    assert found["brightness"] == pytest.approx(luma.mean() / 255)
