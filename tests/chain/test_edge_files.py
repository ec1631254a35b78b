"""The chain's edge files: equal to Keras on the device's code, kept in MLflow, and refused by the device if damaged."""

import json
import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.chain


def test_keras_and_litert_agree_in_the_devices_own_code(chain):
    import mlflow
    import numpy as np
    import tensorflow as tf

    from device.model import edge_model, transform

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    keras = tf.keras.models.load_model(
        mlflow.artifacts.download_artifacts(run_id=summary["train"]["run_id"], artifact_path="keras/model.keras")
    )
    folder = edge_model.folder(root / "edge", "challenger")
    manifest = edge_model.read_manifest(folder)
    sizes = manifest["variants"]
    loaded = {variant: edge_model.load(folder, variant) for variant in sizes}
    assert (
        manifest["version"] == summary["deploy"]["version"]
        and manifest["lineage"]["run_id"] == summary["train"]["run_id"]
    )
    assert (
        sizes["int8"]["bytes"] < 0.4 * sizes["float32"]["bytes"]
        and sizes["float16"]["bytes"] < 0.6 * sizes["float32"]["bytes"]
    )
    image_size = transform.image_size(manifest["transform"])
    for photograph in sorted((root / "landing").rglob("*.jpg"))[:12]:
        data = photograph.read_bytes()
        pixels = np.frombuffer(transform.pixels(data, manifest["transform"]), np.uint8).reshape(
            1, image_size, image_size, 3
        )
        expected = np.asarray(keras(pixels.astype(np.float32), training=False))[0]
        assert edge_model.probabilities(loaded["float32"], data) == pytest.approx(expected, abs=1e-5)
        assert edge_model.probabilities(loaded["float16"], data) == pytest.approx(expected, abs=0.01)
        assert edge_model.probabilities(loaded["int8"], data) == pytest.approx(expected, abs=0.2)
    assert len(manifest["golden"]) >= 4
    for golden in manifest["golden"]:
        data = Path(folder, golden["file"]).read_bytes()
        for variant, scores in golden["scores"].items():
            assert edge_model.probabilities(loaded[variant], data) == pytest.approx(scores, abs=1e-6)


def test_edge_files_in_mlflow_equal_the_published_ones(chain):
    import mlflow

    from device.model import edge_model

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    source = mlflow.MlflowClient().get_model_version_download_uri(
        summary["deploy"]["model"], summary["deploy"]["version"]
    )
    fetched = Path(mlflow.artifacts.download_artifacts(f"{source}/edge/{summary['deploy']['version']}"))
    published = Path(edge_model.folder(root / "edge", "challenger"))
    names = {path.relative_to(published) for path in published.rglob("*") if path.is_file()}
    assert len(names) > 8 and names == {path.relative_to(fetched) for path in fetched.rglob("*") if path.is_file()}
    assert all((published / name).read_bytes() == (fetched / name).read_bytes() for name in names)


def test_version_is_held_back_if_paths_differ(chain, command, run_folder, tmp_path):
    """04_deploy again on the same training, with a tolerance below rounding: version 2, which leaves version 1
    unchanged.
    """
    root = tmp_path / "lakehouse"
    shutil.copytree(chain[0], root)
    edge = {path: path.read_bytes() for path in (root / "edge" / "versions" / "1").rglob("*") if path.is_file()}
    done = command(
        "--only",
        "04_deploy",
        "--set",
        f"storage.root={root}",
        "--set",
        "deploy.parity_tolerance=1.0e-12",
        "--set",
        "deploy.promote_anyway='A, so'",
    )
    assert done.returncode == 0, done.stderr[-3000:]
    deploy = json.loads((run_folder(done) / "summary.json").read_text())["deploy"]
    assert (deploy["version"], deploy["alias"], deploy["promoted"]) == ("2", "challenger", False)
    assert (
        "against Keras" in deploy["reason"]
        and "wanted: 1e-12 at most" in deploy["reason"]
        and 0 < deploy["parity"] < 1e-5
    )
    assert (
        edge
        and {path: path.read_bytes() for path in edge} == edge
        and (root / "edge" / "versions" / "2" / "manifest.json").exists()
    )


@pytest.mark.parametrize(
    "spoil, message",
    [
        pytest.param(
            lambda folder: _flip_a_bit(folder / "int8.tflite"), "not those of the manifest", id="a flipped bit"
        ),
        pytest.param(
            lambda folder: (folder / "int8.tflite").write_bytes(b"<html>"), "not those of the manifest", id="HTML"
        ),
        pytest.param(lambda folder: (folder / "int8.tflite").unlink(), "int8.tflite", id="missing file"),
        pytest.param(lambda folder: (folder / "manifest.json").write_text("{"), "manifest.json", id="half a manifest"),
        pytest.param(
            lambda folder: (folder / "manifest.json").write_text('{"schema_version": 9}'),
            "schema_version",
            id="a later schema",
        ),
        pytest.param(
            lambda folder: (folder / "manifest.json").write_text('{"schema_version": 2}'),
            "classes, golden",
            id="keys missing",
        ),
    ],
)
def test_device_refuses_a_damaged_model(chain, tmp_path, spoil, message):
    from device.model import edge_model

    folder = tmp_path / "edge"
    shutil.copytree(edge_model.folder(chain[0] / "edge", "challenger"), folder)
    assert edge_model.load(folder, "int8")
    spoil(folder)
    with pytest.raises(edge_model.BadModel, match=message):
        edge_model.load(folder, "int8")


def _flip_a_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
