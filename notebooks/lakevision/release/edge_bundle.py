"""A version's edge folder: LiteRT files with a sealed manifest, published where devices read them.

Devices trust a folder by its manifest (see device/model/edge_model.py). A folder with a manifest is complete.
"""

import json
import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from device import files
from device.model import edge_model, transform
from lakevision.dataset import cache, feed
from lakevision.platform import config, workspace
from lakevision.registry import model_registry
from lakevision.release import edge_export, parity

GOLDEN = 6  # photographs that travel with the model: a megabyte at most


@dataclass
class Built:
    """A version's edge folder on this machine, and its manifest."""

    folder: str
    manifest: dict


def build(cfg: config.Config, training: dict, saved: model_registry.Files, version: str) -> Built:
    """Converts a version for the device, into a scratch folder. Raises edge_export.CannotConvert.

    training: the figures of 03_train; saved: the model's files.
    """
    pixels = feed.load(cache.opened(training["cache"]), "train").pixels
    # Spread over the training split, so that the sample contains day and night.
    sample = pixels[:: max(1, len(pixels) // cfg.deploy.calibration_images)][: cfg.deploy.calibration_images]
    folder = tempfile.mkdtemp(prefix="lakevision-edge-")
    variants = edge_export.export(saved.saved_model, sample, folder)
    lineage = {key: value for key, value in saved.card.items() if key not in ("classes", "threshold", "transform")}
    manifest = {
        "model": model_registry.name(cfg),
        "version": version,
        "variants": variants,
        "golden": [],
        **{key: saved.card[key] for key in ("classes", "threshold", "transform")},
        "lineage": {**lineage, "made_at": datetime.now(UTC).isoformat(timespec="seconds")},
    }
    seal(folder, manifest)
    return Built(folder, manifest)


def add_measurements(built: Built, agreed: parity.Parity) -> None:
    """Adds the comparison's results to a manifest and seals it again.

    Each variant gets its parity and latency; the golden images come with the scores of each variant.
    """
    for variant, path in parity.VARIANTS.items():
        times = np.percentile(agreed.milliseconds[variant], [50, 90])
        built.manifest["variants"][variant].update(
            largest=agreed.largest(path),
            agreement=agreed.agreement(path),
            p50_ms=round(float(times[0]), 3),
            p90_ms=round(float(times[1]), 3),
        )
    Path(built.folder, "golden").mkdir(exist_ok=True)
    built.manifest["golden"] = []
    for number, index in enumerate(_golden(agreed)):
        data = agreed.images[index]
        scores: dict[str, Any] = {variant: agreed.scores[path][index] for variant, path in parity.VARIANTS.items()}
        Path(built.folder, "golden", f"{number}.jpg").write_bytes(data)
        built.manifest["golden"].append(
            {
                "file": f"golden/{number}.jpg",
                **edge_export.digest(data),
                "label": agreed.names[index],
                "scores": {variant: [float(score) for score in row] for variant, row in scores.items()},
            }
        )
    seal(built.folder, built.manifest)


def _golden(agreed: parity.Parity) -> list[int]:
    """Indexes of the golden images: plain photographs at even steps from the darkest to the brightest.

    So day and night are both among them.
    """
    plain = [index for index, name in enumerate(agreed.names) if name not in parity.HARD]
    thumbnails = (transform.decode(agreed.images[index]).convert("L").resize((16, 16)) for index in plain)
    light = [np.asarray(thumbnail).mean() for thumbnail in thumbnails]
    order = [plain[index] for index in np.argsort(light)]
    return [order[index] for index in np.unique(np.linspace(0, len(order) - 1, GOLDEN).astype(int))]


def seal(folder: str | Path, manifest: dict) -> None:
    """Writes a manifest (without schema_version) into a version's folder, as its last file."""
    content = {"schema_version": edge_model.SCHEMA_VERSION, **manifest}
    files.write_atomically(Path(folder, "manifest.json"), json.dumps(content, indent=2, sort_keys=True))


def publish(places: workspace.Places, built: Built, version: str, model_uri: str) -> None:
    """Publishes a version's edge files and removes the scratch folder.

    They go to the folder that devices read, as challenger, and beside the model in MLflow, as edge/<version>/. Raises
    FileExistsError if the version has been published before.
    """
    from mlflow import MlflowClient

    edge_model.read_manifest(built.folder)
    # Two versions may come from one training, so the version is part of the path.
    MlflowClient().log_model_artifacts(model_uri.removeprefix("models:/"), built.folder, f"edge/{version}")
    copy_sealed(built.folder, places.edge, version)
    point(places.edge, "challenger", version)
    shutil.rmtree(built.folder)


def copy_sealed(folder: str | Path, edge: str | Path, version: str) -> None:
    """Copies a sealed folder to versions/<version> of the folder that devices read.

    A published version is never changed, because a device may be fetching it. The target may be a volume, which can't
    rename folders: the manifest is therefore written last. Raises FileExistsError.
    """
    target = Path(edge, "versions", version)
    if model := published(edge, version):
        raise FileExistsError(
            f"{target}: version {version} has been published before, of model {model}. "
            "Models can't share a place: see storage.edge"
        )
    shutil.rmtree(target, ignore_errors=True)  # an incomplete copy of a run that was killed
    target.mkdir(parents=True)
    for path in sorted(Path(folder).rglob("*")):
        copy = target / path.relative_to(folder)
        if path.is_file() and path.name != "manifest.json":
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)  # bytes only: a volume keeps no modes
    files.write_atomically(target / "manifest.json", Path(folder, "manifest.json").read_bytes())


def published(edge: str | Path, version: str) -> str:
    """The name of the model that a published version belongs to; "" if the version is not published."""
    try:
        return json.loads(Path(edge, "versions", version, "manifest.json").read_text())["model"]
    except FileNotFoundError:
        return ""


def point(edge: str | Path, alias: str, version: str) -> None:
    """Points an alias in the folder that devices read at a published version. Raises FileNotFoundError if
    unpublished.
    """
    data = Path(edge, "versions", version, "manifest.json").read_bytes()
    manifest = edge_export.digest(data)
    pointer = {
        "schema_version": edge_model.SCHEMA_VERSION,
        "alias": alias,
        "version": version,
        "folder": f"versions/{version}",
        "manifest_sha256": manifest["sha256"],
        "manifest_bytes": manifest["bytes"],
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    files.write_atomically(Path(edge, f"{alias}.json"), json.dumps(pointer, indent=2))


def variants(manifest: dict, accuracies: dict[str, float]) -> pd.DataFrame:
    """The edge files of a manifest as a table. accuracies: {variant: accuracy on the test split}."""
    return pd.DataFrame(
        [
            {
                "variant": name,
                "kB": round(entry["bytes"] / 1000, 1),
                "input": entry["input"],
                "largest difference": f"{entry['largest']:.1e}",
                "same label": f"{entry['agreement']:.1%}",
                "p50 (ms)": entry["p50_ms"],
                "p90 (ms)": entry["p90_ms"],
                "accuracy": accuracies[name],
                "sha256": entry["sha256"][:16],
            }
            for name, entry in manifest["variants"].items()
        ]
    )
