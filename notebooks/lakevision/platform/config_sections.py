"""The type and the limits of every setting, one frozen class for each section of config/defaults.yml.

pydantic checks the values, also in dataclasses.replace(). It is strict: an integer is no text, no bool and no float.
A float may be given as an integer. The values and their advice are in config/defaults.yml.
"""

import dataclasses
import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, ConfigDict
from pydantic.dataclasses import dataclass

STRICT = ConfigDict(strict=True)


def between(low: float, high: float = float("inf")) -> AfterValidator:
    """Inclusive limits of a number, for Annotated[...]. The error names both limits."""

    def check(value: float) -> float:
        if not low <= value <= high:
            raise ValueError(f"must be from {low} to {high}")
        return value

    return AfterValidator(check)


def _text(value: Any) -> Any:
    """YAML reads 2026-03-05 as a date."""
    return value.isoformat() if isinstance(value, datetime.date) else value


def _list(size: int = 0, empty: bool = False) -> BeforeValidator:
    """A list or tuple, as a tuple. size: its exact length; 0: any length, but 0 only if `empty`."""

    def check(value: Any) -> tuple:
        if not isinstance(value, (list, tuple)):
            raise ValueError("must be a list")
        if size and len(value) != size:
            raise ValueError(f"must be a list of {size} values{', low and high' if size == 2 else ''}")
        if not value and not empty:
            raise ValueError("must be a list of at least one value")
        return tuple(value)

    return BeforeValidator(check)


def _in_order(value: tuple[float, float]) -> tuple[float, float]:
    if value[0] > value[1]:
        raise ValueError(f"must be low and high, but low {value[0]} is above high {value[1]}")
    return value


Text = Annotated[str, BeforeValidator(_text)]
Texts = Annotated[tuple[Text, ...], _list(empty=True)]
Share = Annotated[float, between(0.0, 1.0)]
Count = Annotated[int, between(1)]
Natural = Annotated[int, between(0)]
Positive = Annotated[float, between(1e-12)]
NotNegative = Annotated[float, between(0.0)]
HeldOut = Annotated[float, between(0.01, 0.8)]  # a share of the images
Dropout = Annotated[float, between(0.0, 0.95)]


@dataclass(frozen=True, config=STRICT)
class Notebook:
    """The parameters of a notebook."""

    config: Text
    place: Text
    set: Text
    commit: Text


@dataclass(frozen=True, config=STRICT)
class Storage:
    """Where files, tables, runs and models are kept."""

    root: Text
    landing: Text
    edge: Text
    catalog: Text
    schema: Text
    mlflow_uri: Text
    registry_uri: Text
    experiment: Text


@dataclass(frozen=True, config=STRICT)
class Spark:
    """The Spark session outside Databricks."""

    master: Text
    memory: Text
    python: Text
    options: Texts


@dataclass(frozen=True, config=STRICT)
class Capture:
    """Where photographs come from."""

    source: Literal["simulated", "folder", "landing"]
    path: Text
    photographs: Count
    size: Annotated[int, between(64, 4096)]
    shortcut: Literal["none", "labels", "time", "brightness", "position", "sticker"]
    seed: int


@dataclass(frozen=True, config=STRICT)
class Ingest:
    """From the landing zone to the table images."""

    max_files_per_batch: Count
    labels: Literal["auto", "folder", "name", "none"]
    label_source: Text
    listing: Literal["directory", "events", "notification"]
    backfill_interval: Text
    loader_options: Texts
    timezone: Text
    keep_content: bool
    count_landed: bool
    maintenance_days: Natural
    retention_days: Count


@dataclass(frozen=True, config=STRICT)
class Split:
    """Which images train, validate and test."""

    episode_gap_minutes: Positive
    episode_hours: Positive
    near_duplicate_bits: Annotated[int, between(0, 16)]
    embargo_minutes: NotNegative
    held_out_cameras: Texts
    held_out_days: Texts
    test: HeldOut
    validation: HeldOut
    seed: int


@dataclass(frozen=True, config=STRICT)
class Training:
    """The network and its training."""

    transform: Text
    model: Literal["small_cnn", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_v2_b0", "resnet50_v2"]
    weights: Text
    fine_tune_epochs: Natural
    fine_tune_rate: Positive
    fine_tune_layers: Count
    epochs: Count
    batch_size: Count
    ranks: Natural
    engine: Literal["auto", "horovod", "collectives"]
    augment: bool
    noise: Annotated[float, between(0.0, 64.0)]
    patience: Natural
    retries: Natural
    memory_mb: Count
    mixed_precision: bool
    threshold: Share
    swap: Share
    seed: int


@dataclass(frozen=True, config=STRICT)
class Cache:
    """Decoded pixels on disk."""

    folder: Text
    keep_days: Positive
    budget_gb: Positive


@dataclass(frozen=True, config=STRICT)
class Tuning:
    """The search for hyperparameters."""

    trials: Count
    trials_on: Literal["auto", "spark", "driver"]
    parallelism: Count
    epochs: Count
    patience: Natural
    trial_timeout_s: NotNegative
    learning_rate: Annotated[tuple[Positive, Positive], _list(2), AfterValidator(_in_order)]
    dropout: Annotated[tuple[Dropout, Dropout], _list(2), AfterValidator(_in_order)]
    width: Annotated[tuple[Count, ...], _list()]
    seed: int


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """The report and its controls."""

    purpose: Text
    region_from: Literal["auto", "config", "boxes", "occlusion", "none"]
    region: Annotated[tuple[Share, Share, Share, Share], _list(4)]
    boxes: Text
    control_epochs: Natural
    swap_pairs: Natural
    swap_hours: Positive
    swap_light: Positive
    explained: Natural
    miss_cost: Positive
    false_alarm_cost: Positive
    repeat_tolerance: Share


@dataclass(frozen=True, config=STRICT)
class Deploy:
    """What a model must achieve to be promoted, and its edge files."""

    model: Text
    parity_tolerance: Positive
    parity_images: Count
    int8_agreement: Share
    int8_may_lose: Share
    may_lose: Share
    max_mb: Positive
    max_latency_ms: Positive
    promote_anyway: Text
    calibration_images: Count


@dataclass(frozen=True, config=STRICT)
class Score:
    """Scoring by a Spark stream."""

    batch_mb: Count
    rescore: bool


@dataclass(frozen=True, config=STRICT)
class Serve:
    """The REST service and the serving endpoint of Databricks."""

    host: Text
    port: Annotated[int, between(0, 65535)]
    workers: Natural
    threads: Natural
    max_request_mb: Count
    max_rows: Count
    max_megapixels: Annotated[int, between(1, 120)]
    idle_seconds: Positive
    timeout_seconds: Positive
    stop_seconds: Positive
    reload_seconds: NotNegative
    endpoint_name: Text
    workload_size: Literal["Small", "Medium", "Large"]
    scale_to_zero: bool
    endpoint_minutes: Positive


@dataclass(frozen=True, config=STRICT)
class Config:
    """Every setting of one run: frozen, picklable, and checked again by dataclasses.replace()."""

    notebook: Notebook
    storage: Storage
    spark: Spark
    capture: Capture
    ingest: Ingest
    split: Split
    training: Training
    cache: Cache
    tuning: Tuning
    evaluation: Evaluation
    deploy: Deploy
    score: Score
    serve: Serve

    def flat(self) -> dict[str, Any]:
        """{"training.epochs": 30, ...}, as logged in MLflow."""
        return {
            f"{section.name}.{key}": value
            for section in dataclasses.fields(self)
            for key, value in dataclasses.asdict(getattr(self, section.name)).items()
        }
