"""The settings: defaults.toml, overlaid by the owner's file. Errors name the nearest known setting."""

from __future__ import annotations

import difflib
import os
import re
import socket
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

if sys.version_info >= (3, 11):
    import tomllib
else:  # Bullseye has Python 3.9
    import tomli as tomllib

DEFAULTS = Path(__file__).with_name("defaults.toml")
OWNERS_FILE = "/etc/lakevision/device.toml"
SAFE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
SAFE_LABEL = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,39}")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
CHOICES = {
    "camera.kind": ("picamera2", "picamera", "folder", "simulated"),
    "camera.rotation": (0, 90, 180, 270),
    "capture.trigger": ("interval", "change"),
    "feedback.send": ("all", "chosen", "none"),
    "spool.when_full": ("oldest", "newest", "reject"),
}
MODEL_SCHEMES = ("mlflow+", "databricks://")
SCHEMES = ("s3", "s3a", "az", "azure", "abfs", "abfss", "adl", "gs", "file", "volume")
POSITIVE = (
    "camera.timeout_s",
    "upload.timeout_s",
    "upload.connect_timeout_s",
    "upload.poll_s",
    "upload.backoff_s",
    "upload.backoff_max_s",
    "upload.refusals",
    "spool.max_mb",
    "model.interval_s",
    "model.budget_ms",
    "model.max_mb",
    "model.check_s",
    "model.attempts",
    "model.crashes",
    "model.slow_rounds",
    "score.poll_s",
    "score.batch_frames",
    "score.batch_s",
    "score.threads",
    "act.timeout_s",
)
SHARES = ("feedback.margin", "feedback.dark", "feedback.bright", "feedback.flat", "feedback.drift", "feedback.sample")
ALIAS = re.compile(r"[A-Za-z0-9_-]{1,60}")

Settings = SimpleNamespace  # one attribute for each section, each with one attribute for each setting; and `source`
Tree = dict[str, dict[str, Any]]  # section -> key -> value


class ConfigError(ValueError):
    """A setting is unknown, mistyped or impossible; the message names the file, the setting and what to do."""


def load(path: str | os.PathLike[str] | None = None) -> Settings:
    """Loads the settings as nested namespaces (settings.camera.size and so on).

    path: the owner's file; None takes OWNERS_FILE if it exists. Raises ConfigError, or OSError if `path` is unreadable.
    """
    tree = _read(DEFAULTS)
    if path is None and os.path.exists(OWNERS_FILE):
        path = OWNERS_FILE
    if path is not None:
        _overlay(tree, _read(path), path)
    _Check(tree, path or DEFAULTS).everything()
    tree["device"]["id"] = tree["device"]["id"] or _host_id()
    settings = SimpleNamespace(**{section: SimpleNamespace(**values) for section, values in tree.items()})
    settings.source = str(path or DEFAULTS)
    return settings


def _read(path: str | os.PathLike[str]) -> Tree:
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _overlay(tree: Tree, owners: Tree, path: str | os.PathLike[str]) -> None:
    for section, values in owners.items():
        if section not in tree or not isinstance(values, dict):
            raise ConfigError(f"{path}: [{section}] is not known; {_nearest(section, tree)}")
        for key, value in values.items():
            if key not in tree[section]:
                hint = _nearest(key, tree[section], section + ".")
                raise ConfigError(f"{path}: {section}.{key} is not known; {hint}")
            default = tree[section][key]
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            if type(value) is not type(default):
                kind = type(default).__name__
                raise ConfigError(f"{path}: {section}.{key} = {value!r} should be a {kind}, like {default!r}")
            tree[section][key] = value


def _nearest(name: str, known: Iterable[str], prefix: str = "") -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(prefix + key for key in known)}"


class _Check:
    """The checks of the merged settings. Each method raises ConfigError for the first wrong setting."""

    def __init__(self, tree: Tree, path: str | os.PathLike[str]):
        self.tree, self.path = tree, path

    def value(self, setting: str) -> Any:
        section, key = setting.split(".")
        return self.tree[section][key]

    def refuse(self, setting: str, wanted: str) -> NoReturn:
        raise ConfigError(f"{self.path}: {setting} = {self.value(setting)!r} should be {wanted}")

    def everything(self) -> None:
        self.choices_and_ranges()
        self.device()
        self.camera()
        self.scoring()
        self.addresses()

    def choices_and_ranges(self) -> None:
        for setting, choices in CHOICES.items():
            if self.value(setting) not in choices:
                self.refuse(setting, "one of " + ", ".join(map(str, choices)))
        for section, values in self.tree.items():
            for key, number in values.items():
                if type(number) in (int, float) and not 0 <= number < float("inf"):
                    self.refuse(f"{section}.{key}", "0 or more")
        for setting in POSITIVE:
            if self.value(setting) == 0:
                self.refuse(setting, "more than 0")
        for setting in SHARES:
            if self.value(setting) > 1:
                self.refuse(setting, "0 to 1")

    def device(self) -> None:
        if self.value("device.id") and not SAFE_ID.fullmatch(self.value("device.id")):
            self.refuse("device.id", "up to 63 letters, digits, dots, dashes or underscores")
        if self.value("device.label") and not SAFE_LABEL.fullmatch(self.value("device.label")):
            wanted = "up to 40 letters, digits, dots or dashes (an underscore separates the fields of a name)"
            self.refuse("device.label", wanted)
        position = self.value("device.position")
        numeric = len(position) in (0, 2, 3) and all(type(number) in (int, float) for number in position)
        if not numeric or (position and not (-90 <= position[0] <= 90 and -180 <= position[1] <= 180)):
            wanted = "[], [latitude, longitude] or [latitude, longitude, metres], degrees on the globe"
            self.refuse("device.position", wanted)

    def camera(self) -> None:
        size = self.value("camera.size")
        if len(size) != 2 or not all(type(pixels) is int and 16 <= pixels <= 16384 for pixels in size):
            self.refuse("camera.size", "two whole numbers of pixels, [width, height]")
        if not 1 <= self.value("camera.quality") <= 100:
            self.refuse("camera.quality", "1 to 100")
        if self.value("capture.active_hours") and not HOURS.fullmatch(self.value("capture.active_hours")):
            self.refuse("capture.active_hours", '"HH:MM-HH:MM" or ""')
        if self.value("camera.kind") == "folder" and not self.value("camera.folder"):
            self.refuse("camera.folder", 'a folder of JPEGs, since camera.kind is "folder"')

    def scoring(self) -> None:
        if self.value("score.camera") and not self.value("score.enabled"):
            self.refuse("score.camera", "false, since score.enabled is false: capture drives the camera then")
        if not ALIAS.fullmatch(self.value("model.alias")):
            self.refuse("model.alias", 'an alias, like "champion" or "challenger"')
        if not all(type(word) is str for word in self.value("act.command")):
            self.refuse("act.command", '[] or a list of words, like ["/usr/local/bin/ring", "--once"]')

    def addresses(self) -> None:
        self.action("act.mqtt", ("mqtt", "mqtts"))
        self.action("act.webhook", ("http", "https"))
        self.url("store.url", self.value("store.url"))
        url = self.value("model.url")
        if url.startswith(MODEL_SCHEMES) and not self.value("model.name"):
            self.refuse("model.name", "the registered model's name, since model.url is a registry")
        if url.startswith("mlflow+"):
            self.url("model.url", url[len("mlflow+") :], ("http", "https"))
        elif url.startswith("databricks://"):
            self.url("model.url", "volume" + url[len("databricks") :])
        else:
            self.url("model.url", url)

    def action(self, setting: str, schemes: tuple[str, ...]) -> None:
        """The address of an action. The message must not repeat the address, which may hold a secret."""
        scheme, _, rest = self.value(setting).partition("://")
        host = rest.partition("/")[0]
        if self.value(setting) and (scheme not in schemes or not host):
            raise ConfigError(f"{self.path}: {setting} should be {schemes[0]}://host/...")
        if "@" in host:
            raise ConfigError(
                f"{self.path}: {setting} holds a user or a password; credentials belong elsewhere, see README.md"
            )

    def url(self, setting: str, url: str, schemes: tuple[str, ...] = SCHEMES) -> None:
        """A store's URL or full path. The message must not repeat the URL, which may hold a secret."""
        if not url or url.startswith("/"):
            return
        scheme, separator, rest = url.partition("://")
        if not separator or scheme not in schemes:
            allowed = ", ".join(f"{name}://" for name in schemes)
            raise ConfigError(f"{self.path}: {setting} should be a folder's full path or a URL ({allowed})")
        user = rest.partition("/")[0].rpartition("@")[0]
        if "?" in url or ":" in user or (user and not scheme.startswith("abfs")):
            raise ConfigError(
                f"{self.path}: {setting} holds a user, a password or a query; "
                "credentials belong elsewhere, see README.md"
            )
        if scheme == "volume" and len([part for part in rest.split("/") if part]) < 4:
            raise ConfigError(f"{self.path}: {setting} should be volume://workspace-host/catalog/schema/volume/folder")


def _host_id() -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:63] or "device"
