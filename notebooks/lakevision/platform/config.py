"""Loads the settings: config/defaults.yml, then an overlay, then overrides given by hand.

    cfg = config.load("local", "training.epochs=3 tuning.trials=8")
    cfg.training.epochs

The types and limits are in config_sections.py. Import this module only if you need it, in a function of a module that
Spark workers import: pydantic takes 0.1 s to load.
"""

import dataclasses
import difflib
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from pydantic import ValidationError

from lakevision.platform.config_sections import Config

FOLDER = Path(__file__).resolve().parents[3] / "config"
SECTIONS = get_type_hints(Config)  # {section: its class}
TYPES = {"int_type": "int", "float_type": "float", "bool_type": "bool", "string_type": "str"}  # by pydantic's error


class ConfigError(ValueError):
    """A setting is unknown, mistyped or out of range. The message names its source and what was expected."""


def load(
    target: str = "local",
    overrides: str | Iterable[str] | Mapping[str, str | Iterable[str]] = "",
    folder: str | Path = FOLDER,
) -> Config:
    """The Config of a target with overrides.

    target: the name of an overlay (local, dev, prod). overrides: "a.b=1 c.d=x", a list of such words, or
    {source named in errors: either}. Raises ConfigError for an unknown key (naming the nearest known key), a wrong type
    or a value out of range.
    """
    folder = Path(folder)
    layers = [("config/defaults.yml", _read(folder / "defaults.yml"))]
    overlay = folder / f"{target}.yml"
    if not overlay.exists():
        known = sorted(path.stem for path in folder.glob("*.yml") if path.stem != "defaults")
        raise ConfigError(f"target {target!r}: config/{target}.yml does not exist; there are {', '.join(known)}")
    layers.append((f"config/{overlay.name}", _read(overlay)))
    for source, words in (overrides if isinstance(overrides, Mapping) else {"--set": overrides}).items():
        layers.append((source, parse_overrides(words, source)))
    merged: dict[str, dict[str, tuple[Any, str]]] = {}
    for source, layer in layers:
        for section, values in layer.items():
            _demand_known(section, list(SECTIONS), "section", source)
            if not isinstance(values, dict):
                raise ConfigError(f"{source}: {section} holds settings (a mapping), got {values!r}")
            for key, value in values.items():
                _demand_known(key, _keys(section), f"setting of {section}", source)
                merged.setdefault(section, {})[key] = (value, source)
    return Config(**{section: _section(section, merged.get(section, {})) for section in SECTIONS})


def notebook_defaults(folder: str | Path = FOLDER) -> dict[str, str]:
    """{parameter of a notebook: its default}, from the section notebook of defaults.yml. Raises ConfigError."""
    return {name: str(value) for name, value in _read(Path(folder) / "defaults.yml")["notebook"].items()}


def of_record(values: Mapping[str, Mapping[str, Any]], now: Config) -> tuple[Config, list[str]]:
    """The Config that was recorded as {section: {setting: value}}, for use on the machine of the Config `now`.

    The section spark, the root, the devices' folders and the servers' addresses are those of `now`. Returns the Config
    and a sentence for each setting that is only in the record or only in this code. Raises ConfigError for a value out
    of range.
    """
    kept = ("root", "landing", "edge", "mlflow_uri", "registry_uri")
    local = {"storage": {key: getattr(now.storage, key) for key in kept}, "spark": dataclasses.asdict(now.spark)}
    notes, sections = [], {}
    for section in SECTIONS:
        recorded, known = values.get(section, {}), _keys(section)
        current = dataclasses.asdict(getattr(now, section))
        notes += [
            f"{section}.{key} = {recorded[key]!r} was recorded; this code has no such setting"
            for key in recorded
            if key not in known
        ]
        notes += [
            f"{section}.{key} was not recorded; it is {current[key]!r} now" for key in known if key not in recorded
        ]
        merged = {**current, **{key: recorded[key] for key in recorded if key in known}, **local.get(section, {})}
        sections[section] = _section(section, {key: (value, "the record") for key, value in merged.items()})
    notes += [f"section {section} was recorded; this code has none" for section in values if section not in sections]
    return Config(**sections), notes


def parse_overrides(overrides: str | Iterable[str], source: str = "--set") -> dict[str, dict[str, Any]]:
    """Parses "a.b=1 c.d=[1, 2]", or a list of such words, to {"a": {"b": 1}, "c": {"d": [1, 2]}}.

    Values are YAML. source: the origin that errors name. Raises ConfigError.
    """
    try:
        words = shlex.split(overrides) if isinstance(overrides, str) else list(overrides)
    except ValueError as error:
        raise ConfigError(
            f"{source} {overrides!r}: {error}; quote as in a shell: "
            "'deploy.promote_anyway=who, and why' training.epochs=3"
        ) from error
    nested: dict[str, dict[str, Any]] = {}
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


def _read(path: Path) -> dict[str, Any]:
    try:
        values = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ConfigError(f"config/{path.name} is not YAML: {error}") from error
    if not isinstance(values, dict):
        raise ConfigError(f"config/{path.name} holds sections of settings, got {type(values).__name__}")
    return values


def _keys(section: str) -> list[str]:
    return [field.name for field in dataclasses.fields(SECTIONS[section])]


def _demand_known(name: str, known: list[str], kind: str, source: str) -> None:
    if name not in known:
        hint = _did_you_mean(name, known) or f"there are {', '.join(known)}"
        raise ConfigError(f"{source}: {name!r} is not a {kind}; {hint}")


def _did_you_mean(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1, 0.5)
    return f"did you mean {near[0]!r}?" if near else ""


def _section(section: str, values: Mapping[str, tuple[Any, str]]) -> Any:
    """The section's dataclass from {key: (value, source)}."""
    missing = [key for key in _keys(section) if key not in values]
    if missing:
        raise ConfigError(f"config/defaults.yml: {section}.{missing[0]} is missing")
    cls = SECTIONS[section]
    try:
        return cls(**{key: values[key][0] for key in _keys(section)})
    except ValidationError as error:
        first = error.errors()[0]
        key = str(first["loc"][0])
        words = _in_words(first["type"], first, get_type_hints(cls)[key])
        raise ConfigError(f"{values[key][1]}: {section}.{key} {words}") from None  # pydantic's own text repeats this


def _in_words(kind: str, error: Mapping[str, Any], hint: Any) -> str:
    """What the setting must be, and its value. error: an item of ValidationError.errors(). hint: the setting's type."""
    value = error["input"]
    if kind == "value_error":  # from a check in config_sections.py
        return f"{error['ctx']['error']}, got {value!r}"
    if kind == "literal_error" and get_origin(hint) is Literal:
        near = _did_you_mean(value, get_args(hint))
        return f"must be one of {', '.join(get_args(hint))}, got {value!r}{f'; {near}' if near else ''}"
    if kind in TYPES:
        dot = " (YAML wants a dot: 1.0e-5)" if kind == "float_type" and isinstance(value, str) else ""
        return f"must be {TYPES[kind]}, got {value!r}{dot}"
    return f"is not valid: {error['msg']}, got {value!r}"
