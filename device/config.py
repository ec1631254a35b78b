"""The settings: defaults.toml, and over it the owner's file. What is unknown or mistyped raises, naming the nearest known one."""

import difflib
import os
import re
import socket
from pathlib import Path
from types import SimpleNamespace

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.9 and 3.10: Bullseye
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


class ConfigError(ValueError):
    """A setting is unknown, mistyped or impossible; the message names the file, the setting and what to do."""


def load(path=None):
    """Settings as nested namespaces (settings.camera.size and so on).

    path: the owner's file; None takes OWNERS_FILE where it exists. Raises ConfigError; OSError where `path` can't be read.
    """
    tree = _read(DEFAULTS)
    if path is None and os.path.exists(OWNERS_FILE):
        path = OWNERS_FILE
    if path is not None:
        _overlay(tree, _read(path), path)
    _check(tree, path or DEFAULTS)
    tree["device"]["id"] = tree["device"]["id"] or _host_id()
    settings = SimpleNamespace(**{section: SimpleNamespace(**values) for section, values in tree.items()})
    settings.source = str(path or DEFAULTS)
    return settings


def _read(path):
    with open(path, "rb") as file:
        try:
            return tomllib.load(file)
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path}: not valid TOML: {error}") from error


def _overlay(tree, owners, path):
    for section, values in owners.items():
        if section not in tree or not isinstance(values, dict):
            raise ConfigError(f"{path}: [{section}] is not known; {_nearest(section, tree)}")
        for key, value in values.items():
            if key not in tree[section]:
                raise ConfigError(
                    f"{path}: {section}.{key} is not known; {_nearest(key, tree[section], section + '.')}"
                )
            default = tree[section][key]
            if isinstance(default, float) and type(value) is int:
                value = float(value)
            if type(value) is not type(default):
                raise ConfigError(
                    f"{path}: {section}.{key} = {value!r} should be a {type(default).__name__}, like {default!r}"
                )
            tree[section][key] = value


def _nearest(name, known, prefix=""):
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {prefix}{close[0]}?" if close else f"there are {', '.join(prefix + key for key in known)}"


def _check(tree, path):
    def value(dotted):
        section, key = dotted.split(".")
        return tree[section][key]

    def refuse(dotted, wanted):
        raise ConfigError(f"{path}: {dotted} = {value(dotted)!r} should be {wanted}")

    for dotted, choices in CHOICES.items():
        if value(dotted) not in choices:
            refuse(dotted, "one of " + ", ".join(map(str, choices)))
    for section, values in tree.items():
        for key, number in values.items():
            if type(number) in (int, float) and not 0 <= number < float("inf"):
                refuse(f"{section}.{key}", "0 or more")
    for dotted in POSITIVE:
        if value(dotted) == 0:
            refuse(dotted, "more than 0")
    if value("device.id") and not SAFE_ID.fullmatch(value("device.id")):
        refuse("device.id", "up to 63 letters, digits, dots, dashes or underscores")
    if value("device.label") and not SAFE_LABEL.fullmatch(value("device.label")):
        refuse(
            "device.label", "up to 40 letters, digits, dots or dashes (an underscore separates the fields of a name)"
        )
    size = value("camera.size")
    if len(size) != 2 or not all(type(side) is int and 16 <= side <= 16384 for side in size):
        refuse("camera.size", "two whole numbers of pixels, [width, height]")
    if not 1 <= value("camera.quality") <= 100:
        refuse("camera.quality", "1 to 100")
    position = value("device.position")
    if (
        len(position) not in (0, 2, 3)
        or not all(type(number) in (int, float) for number in position)
        or (position and not (-90 <= position[0] <= 90 and -180 <= position[1] <= 180))
    ):
        refuse("device.position", "[], [latitude, longitude] or [latitude, longitude, metres], degrees on the globe")
    if value("capture.active_hours") and not HOURS.fullmatch(value("capture.active_hours")):
        refuse("capture.active_hours", '"HH:MM-HH:MM" or ""')
    if value("camera.kind") == "folder" and not value("camera.folder"):
        refuse("camera.folder", 'a folder of JPEGs, since camera.kind is "folder"')
    if value("score.camera") and not value("score.enabled"):
        refuse("score.camera", "false, since score.enabled is false: capture drives the camera then")
    for dotted in SHARES:
        if value(dotted) > 1:
            refuse(dotted, "0 to 1")
    if not ALIAS.fullmatch(value("model.alias")):
        refuse("model.alias", 'an alias, like "champion" or "challenger"')
    if not all(type(word) is str for word in value("act.command")):
        refuse("act.command", '[] or a list of words, like ["/usr/local/bin/ring", "--once"]')
    for dotted, schemes in (("act.mqtt", ("mqtt", "mqtts")), ("act.webhook", ("http", "https"))):
        _check_address(value(dotted), dotted, schemes, path)
    _check_url(value("store.url"), path, "store.url")
    url = value("model.url")
    if url.startswith(MODEL_SCHEMES) and not value("model.name"):
        refuse("model.name", "the registered model's name, since model.url is a registry")
    _check_url(
        "volume" + url[len("databricks") :]
        if url.startswith("databricks://")
        else url[len("mlflow+") :]
        if url.startswith("mlflow+")
        else url,
        path,
        "model.url",
        ("http", "https") if url.startswith("mlflow+") else SCHEMES,
    )


def _check_address(url, dotted, schemes, path):
    """act.mqtt and act.webhook; a message must not repeat what may hold a secret."""
    rest = url.partition("://")[2]
    if url and (url.partition("://")[0] not in schemes or not rest.partition("/")[0]):
        raise ConfigError(f"{path}: {dotted} should be {schemes[0]}://host/...")
    if "@" in rest.partition("/")[0]:
        raise ConfigError(f"{path}: {dotted} holds a user or a password; credentials belong elsewhere, see README.md")


def _check_url(url, path, setting, schemes=SCHEMES):
    if not url or url.startswith("/"):
        return
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in schemes:
        raise ConfigError(
            f"{path}: {setting} should be a folder's full path or a URL ({', '.join(s + '://' for s in schemes)})"
        )
    # The message must not repeat the URL: it may hold a secret.
    user = rest.partition("/")[0].rpartition("@")[0]
    if "?" in url or ":" in user or (user and not scheme.startswith("abfs")):
        raise ConfigError(
            f"{path}: {setting} holds a user, a password or a query; credentials belong elsewhere, see README.md"
        )
    if scheme == "volume" and len([part for part in rest.split("/") if part]) < 4:
        raise ConfigError(f"{path}: {setting} should be volume://workspace-host/catalog/schema/volume/folder")


def _host_id():
    return re.sub(r"[^A-Za-z0-9._-]+", "-", socket.gethostname()).strip("-._")[:63] or "device"
