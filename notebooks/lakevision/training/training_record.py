"""What the final training leaves in its MLflow run, so that the run can be reproduced."""

from dataclasses import asdict

from lakevision.training import backbone


def record_training(setting, trained):
    """Logs into the active run what the final model was made with and how it went. setting: loop.Setting; trained: horovod_ranks.Trained."""
    import mlflow

    mlflow.log_dict(asdict(setting), "setting.json")
    mlflow.log_dict(
        {
            "digest": trained.result.digest,
            "ranks": len(trained.digests),
            "history": trained.result.history,
            "weights": backbone.source(setting) if backbone.frozen(setting) else "",
        },
        "training.json",
    )
