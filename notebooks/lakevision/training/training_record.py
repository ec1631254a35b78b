"""What the final training leaves in its MLflow run, so that the run can be reproduced."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from lakevision.training import backbone

if TYPE_CHECKING:
    from lakevision.training.loop import Setting
    from lakevision.training.ranks import Trained


def record_training(setting: Setting, trained: Trained) -> None:
    """Logs the setting and the course of the final training into the active run, as setting.json and training.json."""
    import mlflow

    mlflow.log_dict(asdict(setting), "setting.json")
    mlflow.log_dict(
        {
            "digest": trained.result.digest,
            "ranks": len(trained.digests),
            "engine": trained.engine,
            "history": trained.result.history,
            "weights": backbone.source(setting) if backbone.frozen(setting) else "",
        },
        "training.json",
    )
