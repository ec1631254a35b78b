"""From a judged model to a version that can serve: its edge files, measured and published."""

import shutil
import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pandas as pd

from device.model import edge_model, transform
from lakevision.dataset import cache, feed
from lakevision.registry import model_registry
from lakevision.release import edge_export, parity

GOLDEN = 6  # photographs that travel with the model: a megabyte at most


@dataclass
class Built:
    """A version's edge folder on this machine, and its manifest."""

    folder: str
    manifest: dict


def build(cfg, training, saved, version):
    """Converts a version for the device, into a scratch folder. training: the figures of 03_train; saved: model_registry.Files. Returns Built."""
    pixels = feed.load(cache.opened(training["cache"]), "train").pixels
    # Spread over the training share, so that day and night are both in it.
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
    edge_export.seal(folder, manifest)
    return Built(folder, manifest)


def measured(built, agreed):
    """Adds to a manifest what the comparison found: parity and latency of each variant, and golden images with their scores. agreed: parity.Parity."""
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
    for number, place in enumerate(_golden(agreed)):
        data = agreed.images[place]
        Path(built.folder, "golden", f"{number}.jpg").write_bytes(data)
        built.manifest["golden"].append(
            {
                "file": f"golden/{number}.jpg",
                **edge_export.digest(data),
                "label": agreed.names[place],
                "scores": {
                    variant: [float(score) for score in agreed.scores[path][place]]
                    for variant, path in parity.VARIANTS.items()
                },
            }
        )
    edge_export.seal(built.folder, built.manifest)


def _golden(agreed):
    """Places of the golden images: of the plain photographs those by light from darkest to brightest, evenly: day and night are both among them."""
    plain = [place for place, name in enumerate(agreed.names) if name not in parity.HARD]
    light = [np.asarray(transform.decode(agreed.images[place]).convert("L").resize((16, 16))).mean() for place in plain]
    order = [plain[index] for index in np.argsort(light)]
    return [order[index] for index in np.unique(np.linspace(0, len(order) - 1, GOLDEN).astype(int))]


def publish(places, built, version, model_uri):
    """Puts a version's edge files where devices read them, as challenger, and beside the model in MLflow, as edge/<version>/; removes the scratch folder."""
    from mlflow import MlflowClient

    edge_model.read_manifest(built.folder)
    MlflowClient().log_model_artifacts(
        model_uri.removeprefix("models:/"), built.folder, f"edge/{version}"
    )  # two versions may be of one training
    edge_export.publish(built.folder, places.edge, version)
    edge_export.point(places.edge, "challenger", version)
    shutil.rmtree(built.folder)


def variants(manifest, accuracies):
    """The manifest's files as a table. accuracies: {variant: share right on the test side}."""
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
