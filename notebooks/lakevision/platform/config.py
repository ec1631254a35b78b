"""Every setting, typed and checked: config/defaults.yml, then an overlay, then what was set by hand.

    cfg = config.load("local", "training.epochs=3 tuning.trials=8")
    cfg.training.epochs

The values and their advice stand in config/defaults.yml; the types and limits here.
"""

import dataclasses
import datetime
import difflib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, get_args, get_origin, get_type_hints

import yaml

FOLDER = Path(__file__).resolve().parents[3] / "config"


class ConfigError(ValueError):
    """A setting is unknown, mistyped or out of range; the message names it, where it came from and what is expected."""


@dataclass(frozen=True)
class Range:
    """Inclusive limits of a number."""

    low: float
    high: float = float("inf")


Share = Annotated[float, Range(0.0, 1.0)]
Count = Annotated[int, Range(1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(1e-12)]


@dataclass(frozen=True)
class Notebook:
    config: str
    place: str
    set: str
    commit: str


@dataclass(frozen=True)
class Storage:
    root: str
    landing: str
    edge: str
    catalog: str
    schema: str
    mlflow_uri: str
    registry_uri: str
    experiment: str


@dataclass(frozen=True)
class Spark:
    master: str
    memory: str
    python: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Capture:
    source: Literal["simulated", "folder", "landing"]
    path: str
    photographs: Count
    size: Annotated[int, Range(64, 4096)]
    shortcut: Literal["none", "labels", "time", "brightness", "position", "sticker"]
    seed: int


@dataclass(frozen=True)
class Ingest:
    max_files_per_batch: Count
    labels: Literal["auto", "folder", "name", "none"]
    label_source: str
    listing: Literal["directory", "events", "notification"]
    backfill_interval: str
    loader_options: tuple[str, ...]
    timezone: str
    keep_content: bool
    count_landed: bool
    maintenance_days: Natural
    retention_days: Count


@dataclass(frozen=True)
class Split:
    episode_gap_minutes: Positive
    episode_hours: Positive
    near_duplicate_bits: Annotated[int, Range(0, 16)]
    embargo_minutes: Annotated[float, Range(0.0)]
    held_out_cameras: tuple[str, ...]
    held_out_days: tuple[str, ...]
    test: Annotated[float, Range(0.01, 0.8)]
    validation: Annotated[float, Range(0.01, 0.8)]
    seed: int


@dataclass(frozen=True)
class Training:
    transform: str
    model: Literal["small_cnn", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_v2_b0", "resnet50_v2"]
    weights: str
    fine_tune_epochs: Natural
    fine_tune_rate: Positive
    fine_tune_layers: Count
    epochs: Count
    batch_size: Count
    ranks: Natural
    augment: bool
    noise: Annotated[float, Range(0.0, 64.0)]
    patience: Natural
    retries: Natural
    memory_mb: Count
    mixed_precision: bool
    threshold: Share
    swap: Share
    seed: int


@dataclass(frozen=True)
class Cache:
    folder: str
    keep_days: Positive
    budget_gb: Positive


@dataclass(frozen=True)
class Tuning:
    trials: Count
    trials_on: Literal["auto", "spark", "driver"]
    parallelism: Count
    epochs: Count
    patience: Natural
    trial_timeout_s: Annotated[float, Range(0.0)]
    learning_rate: Annotated[tuple[float, float], Range(1e-12)]
    dropout: Annotated[tuple[float, float], Range(0.0, 0.95)]
    width: Annotated[tuple[int, ...], Range(1)]
    seed: int


@dataclass(frozen=True)
class Evaluation:
    purpose: str
    region_from: Literal["auto", "config", "boxes", "occlusion", "none"]
    region: Annotated[tuple[float, float, float, float], Range(0.0, 1.0)]
    boxes: str
    control_epochs: Natural
    swap_pairs: Natural
    swap_hours: Positive
    swap_light: Positive
    explained: Natural
    miss_cost: Positive
    false_alarm_cost: Positive
    repeat_tolerance: Share


@dataclass(frozen=True)
class Deploy:
    model: str
    parity_tolerance: Positive
    parity_images: Count
    int8_agreement: Share
    int8_may_lose: Share
    may_lose: Share
    max_mb: Positive
    max_latency_ms: Positive
    promote_anyway: str
    calibration_images: Count


@dataclass(frozen=True)
class Score:
    batch_mb: Count
    rescore: bool


@dataclass(frozen=True)
class Serve:
    host: str
    port: Annotated[int, Range(0, 65535)]
    workers: Natural
    threads: Natural
    max_request_mb: Count
    max_rows: Count
    max_megapixels: Annotated[int, Range(1, 120)]
    idle_seconds: Positive
    timeout_seconds: Positive
    stop_seconds: Positive
    reload_seconds: Annotated[float, Range(0.0)]
    endpoint_name: str
    workload_size: Literal["Small", "Medium", "Large"]
    scale_to_zero: bool
    endpoint_minutes: Positive


@dataclass(frozen=True)
class Config:
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

    def flat(self):
        """{"training.epochs": 30, ...}: what MLflow logs."""
        return {
            f"{section.name}.{key}": value
            for section in dataclasses.fields(self)
            for key, value in dataclasses.asdict(getattr(self, section.name)).items()
        }


def load(target="local", overrides="", folder=FOLDER):
    """The Config of a target (an overlay's name: local, dev, prod) with overrides: "a.b=1 c.d=x", a list of them, or {source: either}.

    Raises ConfigError for an unknown key (naming the nearest known one), a wrong type or a value out of range.
    """
    folder = Path(folder)
    layers = [("config/defaults.yml", _read(folder / "defaults.yml"))]
    overlay = folder / f"{target}.yml"
    if not overlay.exists():
        known = sorted(path.stem for path in folder.glob("*.yml") if path.stem != "defaults")
        raise ConfigError(f"target {target!r}: config/{target}.yml does not exist; there are {', '.join(known)}")
    layers.append((f"config/{overlay.name}", _read(overlay)))
    for source, words in (overrides if isinstance(overrides, dict) else {"--set": overrides}).items():
        layers.append((source, parse_overrides(words, source)))
    merged = {}
    for source, layer in layers:
        for section, values in layer.items():
            _known(section, [field.name for field in dataclasses.fields(Config)], "section", source)
            if not isinstance(values, dict):
                raise ConfigError(f"{source}: {section} holds settings (a mapping), got {values!r}")
            known = [field.name for field in dataclasses.fields(get_type_hints(Config)[section])]
            for key, value in values.items():
                _known(key, known, f"setting of {section}", source)
                merged.setdefault(section, {})[key] = (value, source)
    return Config(
        **{section: _section(section, cls, merged.get(section, {})) for section, cls in get_type_hints(Config).items()}
    )


def notebook_defaults(folder=FOLDER):
    """{name of a notebook's parameter: its value where nobody says one}: section notebook of config/defaults.yml."""
    return {name: str(value) for name, value in _read(Path(folder) / "defaults.yml")["notebook"].items()}


def of_record(values, now):
    """The Config that was recorded as {section: {setting: value}}, at the place of the Config `now`: its spark section, root and servers.

    Returns (Config, list in words of the settings that only one of the record and this code knows). Raises ConfigError for a value out of range.
    """
    placed = {
        "storage": {
            key: getattr(now.storage, key) for key in ("root", "landing", "edge", "mlflow_uri", "registry_uri")
        },
        "spark": dataclasses.asdict(now.spark),
    }
    notes, sections = [], {}
    for section, cls in get_type_hints(Config).items():
        given, known = values.get(section, {}), [field.name for field in dataclasses.fields(cls)]
        notes += [
            f"{section}.{key} = {given[key]!r} was recorded; this code has no such setting"
            for key in given
            if key not in known
        ]
        notes += [
            f"{section}.{key} was not recorded; it is {getattr(getattr(now, section), key)!r} now"
            for key in known
            if key not in given
        ]
        taken = {
            **dataclasses.asdict(getattr(now, section)),
            **{key: given[key] for key in given if key in known},
            **placed.get(section, {}),
        }
        sections[section] = _section(section, cls, {key: (value, "the record") for key, value in taken.items()})
    notes += [f"section {section} was recorded; this code has none" for section in values if section not in sections]
    return Config(**sections), notes


def parse_overrides(overrides, source="--set"):
    """ "a.b=1 c.d=[1, 2]" or a list of such -> {"a": {"b": 1}, "c": {"d": [1, 2]}}; values are YAML. source: for messages. Raises ConfigError."""
    try:
        words = shlex.split(overrides) if isinstance(overrides, str) else list(overrides)
    except ValueError as error:
        raise ConfigError(
            f"{source} {overrides!r}: {error}; quote as in a shell: 'deploy.promote_anyway=who, and why' training.epochs=3"
        ) from error
    nested = {}
    for word in words:
        name, equals, text = word.partition("=")
        section, dot, key = name.strip().partition(".")
        if not (equals and dot and key):
            raise ConfigError(f"{source} {word!r}: expected section.setting=value, as in training.epochs=3")
        try:
            value = yaml.safe_load(text) if text else ""
        except yaml.YAMLError as error:
            raise ConfigError(f"{source} {word!r}: the value is not YAML: {error}") from error
        nested.setdefault(section, {})[key] = value
    return nested


def _read(path):
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"config/{path.name} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config/{path.name} holds sections of settings, got {type(values).__name__}")
    return values


def _known(name, known, what, source):
    if name not in known:
        near = difflib.get_close_matches(str(name), known, 1, 0.5)
        raise ConfigError(
            f"{source}: {name!r} is not a {what}; {f'did you mean {near[0]!r}?' if near else 'there are ' + ', '.join(known)}"
        )


def _section(section, cls, values):
    built = {}
    for key, kind in get_type_hints(cls, include_extras=True).items():
        if key not in values:
            raise ConfigError(f"config/defaults.yml: {section}.{key} is missing")
        value, source = values[key]
        built[key] = _check(value, kind, f"{source}: {section}.{key}")
    return cls(**built)


def _check(value, kind, where):
    limits = None
    if get_origin(kind) is Annotated:
        kind, limits = get_args(kind)
    if get_origin(kind) is Literal:
        if value not in get_args(kind):
            near = difflib.get_close_matches(str(value), map(str, get_args(kind)), 1, 0.5)
            raise ConfigError(
                f"{where} must be one of {', '.join(map(str, get_args(kind)))}, got {value!r}{f'; did you mean {near[0]!r}?' if near else ''}"
            )
        return value
    if get_origin(kind) is tuple:
        kinds = get_args(kind)
        if not isinstance(value, (list, tuple)) or not (
            value or kinds == (str, Ellipsis)
        ):  # of names there may be none
            raise ConfigError(f"{where} must be a list, got {value!r}")
        if kinds[-1] is not Ellipsis and len(value) != len(kinds):
            raise ConfigError(
                f"{where} must be a list of {len(kinds)} values{', low and high' if len(kinds) == 2 else ''}, got {value!r}"
            )
        item = Annotated[kinds[0], limits] if limits else kinds[0]
        checked = tuple(_check(element, item, where) for element in value)
        if len(kinds) == 2 and kinds[-1] is not Ellipsis and checked[0] > checked[1]:
            raise ConfigError(f"{where}: low {checked[0]} is above high {checked[1]}")
        return checked
    if kind is str and isinstance(value, datetime.date):
        value = value.isoformat()  # YAML makes a date of 2026-03-05
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise ConfigError(
            f"{where} must be {kind.__name__}, got {value!r}{' (YAML wants a dot: 1.0e-5)' if kind is float and isinstance(value, str) else ''}"
        )
    if limits and not limits.low <= value <= limits.high:
        raise ConfigError(f"{where} must be from {limits.low} to {limits.high}, got {value!r}")
    return value
