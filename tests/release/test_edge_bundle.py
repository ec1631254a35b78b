"""A version's edge folder: sealed, copied whole or not at all, and pointed at by an alias."""

import hashlib
import json

import numpy as np
import pytest
from release_cases import AGREED

from device.model import edge_model
from device.simulation import porch
from lakevision.release import edge_bundle, edge_export, parity


@pytest.fixture
def sealed(tmp_path):
    """A sealed folder with one file in a subfolder."""
    folder = tmp_path / "built"
    (folder / "golden").mkdir(parents=True)
    (folder / "golden" / "0.jpg").write_bytes(b"photograph")
    edge_bundle.seal(folder, {"version": "1", "model": "lakevision"})
    return folder


def test_each_edge_file_has_its_own_accuracy():
    entry = {
        "bytes": 1,
        "input": "uint8",
        "largest": 0.0,
        "agreement": 1.0,
        "p50_ms": 1.0,
        "p90_ms": 1.0,
        "sha256": "a" * 64,
    }
    table = edge_bundle.variants(
        {"variants": {name: entry for name in ("float32", "float16", "int8")}},
        {"float16": 0.9, "float32": 0.8, "int8": 0.7},
    )
    assert dict(zip(table["variant"], table["accuracy"])) == {"float32": 0.8, "float16": 0.9, "int8": 0.7}


def test_manifest_has_the_schema_version(sealed):
    manifest = json.loads((sealed / "manifest.json").read_text())
    assert manifest == {"schema_version": edge_model.SCHEMA_VERSION, "version": "1", "model": "lakevision"}
    assert {path.name for path in sealed.iterdir()} == {"golden", "manifest.json"}


def test_incomplete_copy_of_a_killed_run_is_replaced(sealed, tmp_path):
    edge = tmp_path / "edge"
    (edge / "versions" / "1").mkdir(parents=True)
    (edge / "versions" / "1" / "int8.tflite").write_bytes(b"half a")
    assert edge_bundle.published(edge, "1") == ""
    edge_bundle.copy_sealed(sealed, edge, "1")
    names = {path.relative_to(edge).as_posix() for path in edge.rglob("*") if path.is_file()}
    assert names == {"versions/1/golden/0.jpg", "versions/1/manifest.json"}
    assert edge_bundle.published(edge, "1") == "lakevision"


def test_published_version_is_never_changed(sealed, tmp_path):
    edge_bundle.copy_sealed(sealed, tmp_path / "edge", "1")
    edge_bundle.seal(sealed, {"version": "1", "model": "another"})
    with pytest.raises(FileExistsError, match="version 1 has been published before, of model lakevision"):
        edge_bundle.copy_sealed(sealed, tmp_path / "edge", "1")
    assert edge_bundle.published(tmp_path / "edge", "1") == "lakevision"


def test_pointer_names_the_manifest_by_its_digest(sealed, tmp_path):
    edge = tmp_path / "edge"
    with pytest.raises(FileNotFoundError):
        edge_bundle.point(edge, "champion", "1")
    edge_bundle.copy_sealed(sealed, edge, "1")
    edge_bundle.point(edge, "champion", "1")
    pointer = json.loads((edge / "champion.json").read_text())
    data = (edge / pointer["folder"] / "manifest.json").read_bytes()
    assert (pointer["alias"], pointer["version"]) == ("champion", "1")
    assert (pointer["manifest_bytes"], pointer["manifest_sha256"]) == (len(data), hashlib.sha256(data).hexdigest())


def test_measurements_and_golden_images_go_into_the_manifest(tmp_path):
    """Eight photographs by light: the darkest and the brightest are among the golden images, unusual files are not."""
    shots = [porch.jpeg(scene) for scene in porch.plan(8, size=(64, 64))]
    rows = [np.array([0.9, 0.1])] * 9
    paths = (parity.REFERENCE, *parity.EXACT, *parity.VARIANTS.values())
    times = {variant: np.arange(1.0, 10.0) for variant in parity.VARIANTS}
    agreed = parity.Parity(
        dict.fromkeys(paths, rows), AGREED.classes, 0.5, ["HTML", *["day"] * 8], [b"<html>", *shots], times
    )
    built = edge_bundle.Built(str(tmp_path), {"variants": {variant: {} for variant in parity.VARIANTS}})
    edge_bundle.add_measurements(built, agreed)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["variants"]["int8"] == {"agreement": 1.0, "largest": 0.0, "p50_ms": 5.0, "p90_ms": 8.2}
    assert len(manifest["golden"]) == edge_bundle.GOLDEN
    for golden in manifest["golden"]:
        data = (tmp_path / golden["file"]).read_bytes()
        assert data in shots and edge_export.digest(data).items() <= golden.items()
        assert golden["scores"] == {variant: [0.9, 0.1] for variant in parity.VARIANTS}
