"""The setting of one training: everything that decides its weights, apart from the photographs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from device.model import transform
from lakevision.dataset import object_region
from lakevision.dataset.object_region import Region

if TYPE_CHECKING:
    from lakevision.dataset.cache import Cache
    from lakevision.platform.config import Config


@dataclass(frozen=True)
class Setting:
    """The setting of one training; MLflow keeps it as setting.json.

    side: height and width of the pixels. batch_size: photographs of each rank in a step. learning_rate: for one rank's
    batch. swap: share of images whose region comes from another image, see region_swap.augment. weights: none,
    imagenet or a path; the fields from weights to fine_tune_layers belong to a backbone, see backbone.fit. noise:
    standard deviation in grey values. patience: stop after so many epochs without a lower validation loss; 0 is never.
    """

    model: str
    side: int
    classes: int
    epochs: int
    batch_size: int
    learning_rate: float
    dropout: float
    width: int
    augment: bool
    seed: int
    swap: float = 0.0
    region: Region | None = None
    weights: str = "none"
    fine_tune_epochs: int = 0
    fine_tune_rate: float = 0.1
    fine_tune_layers: int = 30
    noise: float = 0.0
    patience: int = 0
    mixed_precision: bool = False


def first_setting(cfg: Config, cache: Cache) -> Setting:
    """The Setting of the configuration for a cache, which the search varies.

    Raises object_region.BadRegion if training.swap is on and the object's region is unknown before training.
    """
    from lakevision.training import backbone

    region = object_region.known(cfg) if cfg.training.swap else None
    if cfg.training.swap and region is None:
        raise object_region.BadRegion(
            "training.swap needs to know where the object is before training: evaluation.region_from must be config "
            f"or boxes, but is {cfg.evaluation.region_from}"
        )
    return Setting(
        model=cfg.training.model,
        side=transform.image_size(cache.transform),
        classes=len(cache.classes),
        epochs=cfg.training.epochs,
        batch_size=cfg.training.batch_size,
        learning_rate=float(np.sqrt(np.prod(cfg.tuning.learning_rate))),
        dropout=cfg.tuning.dropout[0],
        width=cfg.tuning.width[0],
        augment=cfg.training.augment,
        seed=cfg.training.seed,
        swap=cfg.training.swap,
        region=region,
        weights=backbone.located(cfg.training.model, cfg.training.weights),
        fine_tune_epochs=cfg.training.fine_tune_epochs,
        fine_tune_rate=cfg.training.fine_tune_rate,
        fine_tune_layers=cfg.training.fine_tune_layers,
        noise=cfg.training.noise,
        patience=cfg.training.patience,
        mixed_precision=cfg.training.mixed_precision,
    )


def longer(setting: Setting, epochs: int) -> Setting:
    """The same setting for another number of epochs."""
    return replace(setting, epochs=epochs)
