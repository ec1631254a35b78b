"""python -m device doctor: independent checks of this device, each with its fix.

A failed check does not hide the others. Two checks write: spool_folder writes a small file to the spool's disk and
deletes it again, and store puts the object _doctor/<device>.txt into the store.
"""

from __future__ import annotations

import glob
import importlib.metadata
import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from device import camera as cameras
from device import clock
from device.hang_guard import guard
from device.spool.spool import MEGABYTE
from device.store import credentials, stores, types

if TYPE_CHECKING:
    from device.config import Settings


class Bad(Exception):
    """A check failed; the message holds the fault, then "Fix:" and the remedy."""


def run(settings: Settings) -> int:
    """Prints a line for each check; returns 0 if all passed, 1 otherwise."""
    failed = 0
    checks: list[Callable[[Settings], str]] = [
        packages,
        board,
        clock_check,
        spool_folder,
        camera,
        secrets,
        store,
        services,
    ]
    checks += [scorer, next_model, actions] if settings.score.enabled else []
    for check in checks:
        try:
            print(f"ok    {check.__name__:13} {check(settings)}")
        except Bad as bad:
            failed += 1
            print(f"FAIL  {check.__name__:13} {bad}")
        except Exception as error:  # a broken check must not stop the others
            failed += 1
            print(f"FAIL  {check.__name__:13} the check itself broke: {type(error).__name__}: {error}")
    print("all checks passed" if not failed else f"{failed} of {len(checks)} checks failed")
    return 1 if failed else 0


def packages(_: Settings) -> str:
    """Python, Pillow and obstore are installed; their versions."""
    versions = [f"Python {sys.version.split()[0]}"]
    for name in ("pillow", "obstore"):
        try:
            versions.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            raise Bad(
                f"{name} is not installed. Fix: {sys.executable} -m pip install -r device/requirements.txt"
            ) from None
    return ", ".join(versions)


def board(_: Settings) -> str:
    """Power and heat are in order. They cause most camera hangs."""
    readings = []
    for path in glob.glob("/sys/class/thermal/thermal_zone0/temp"):
        with open(path) as file:
            degrees = int(file.read()) / 1000
        readings.append(f"{degrees:.0f} C")
        if degrees >= 80:
            raise Bad(f"{degrees:.0f} C: the processor slows down from 80 C on. Fix: a heat sink, shade, air")
    if shutil.which("vcgencmd"):
        answer = subprocess.run(
            ["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=10
        ).stdout.strip()
        bits = int(answer.partition("=")[2] or "0", 16)
        if bits & 0x10001:  # bit 0 now, bit 16 since boot
            raise Bad(f"{answer}: under-voltage. Fix: the official power supply, a short and thick cable")
        readings.append(answer)
    return ", ".join(readings) or "not a Raspberry Pi: no power or heat to read"


def clock_check(_: Settings) -> str:
    """The clock is plausible and synchronised."""
    now = clock.now()
    if now < datetime(2025, 1, 1, tzinfo=timezone.utc):
        raise Bad(
            f"the clock shows {now:%Y-%m-%d}. Fix: sudo timedatectl set-ntp true; "
            "a Pi without a network at boot needs a clock chip"
        )
    if clock.synced() is False:
        raise Bad(
            f"{now:%Y-%m-%d %H:%M:%S} UTC, not synced since boot. Fix: sudo timedatectl set-ntp true, and let UDP 123 "
            "out. Frames are kept all the same, and marked as unsynced"
        )
    return f"{now:%Y-%m-%d %H:%M:%S} UTC, {clock.WORDS[clock.synced()]}"


def spool_folder(settings: Settings) -> str:
    """The spool's disk can be written durably, and has room."""
    path = settings.spool.path
    probe = os.path.join(path, f".doctor-{os.getpid()}")
    try:
        if os.geteuid() != 0:  # a folder made by root would lock the services out
            os.makedirs(path, exist_ok=True)
        with open(probe, "wb") as file:
            file.write(os.urandom(200_000))
            file.flush()
            os.fsync(file.fileno())
        os.unlink(probe)
    except OSError as error:
        raise Bad(
            f"{path}: {error.strerror}. Fix: sudo install -d -o lakevision -g lakevision {path}, or run this as that "
            'user (sudo -u lakevision); "Read-only file system" means a dying card'
        ) from error
    disk = os.statvfs(path)
    free = disk.f_bavail * disk.f_frsize / MEGABYTE
    if free < settings.spool.free_mb + 50:
        raise Bad(
            f"{free:.0f} MB free at {path}, and {settings.spool.free_mb:g} are to stay free. "
            "Fix: make room, or lower spool.free_mb"
        )
    return f"{path}: writes and syncs, {free:.0f} MB free"


def camera(settings: Settings) -> str:
    """The camera gives one frame. If the service runs and holds the camera, the service's frames are the proof."""
    from device.status import is_running

    if is_running(settings, "capture"):
        return "in use by the running capture (see `python -m device status` for its last frame)"
    used = cameras.load(settings)
    try:
        with guard(settings.camera.timeout_s + settings.camera.warm_up_s):
            used.open()
            frame = used.capture()
    except cameras.CameraError as error:
        raise Bad(f"{error}. Fix: as described; the user must be in the group video") from error
    finally:
        used.close()
    return f"{settings.camera.kind}: a frame of {len(frame.jpeg)} bytes, {frame.metadata.get('model', '')}"


def secrets(settings: Settings) -> str:
    """The credentials exist and no other user can read them."""
    for path in ("/etc/lakevision/credentials", os.path.join(os.environ.get("CREDENTIALS_DIRECTORY", ""), "store")):
        if os.path.isfile(path) and stat.S_IMODE(os.stat(path).st_mode) & 0o077:
            raise Bad(f"{path} can be read by others. Fix: sudo chown root: {path} && sudo chmod 600 {path}")
    if not settings.store.url:
        raise Bad("store.url is empty. Fix: set it in /etc/lakevision/device.toml")
    names = sorted(credentials.load(stores.provider(settings.store.url)))
    if names:
        return "found " + ", ".join(names)
    if stores.provider(settings.store.url) == "file":
        return "none needed for a folder"
    return (
        "none given to this process; under systemd upload gets /etc/lakevision/credentials "
        "(to check with them, see README.md, doctor)"
    )


def store(settings: Settings) -> str:
    """The store accepts an object and returns it."""
    key = f"_doctor/{settings.device.id}.txt"
    try:
        opened = stores.open_store(settings)
        try:
            opened.put(key, b"lakevision doctor\n")
        except types.AlreadyThere:
            opened.get(key)
    except types.Denied as error:
        raise Bad(f"{error}. Fix: the permissions in README.md, Clouds; the URL, region and credentials") from error
    except (types.Unavailable, types.Refused) as error:
        raise Bad(f"{error}. Fix: the network (ping, proxy, firewall), store.url and store.endpoint") from error
    return f"{opened.name}: wrote and found {key}"


def scorer(settings: Settings) -> str:
    """LiteRT is installed, and the model in use passes on its golden photographs."""
    from device.model import golden, slots

    try:
        version = importlib.metadata.version("ai-edge-litert")
    except importlib.metadata.PackageNotFoundError:
        raise Bad(
            f"LiteRT is not installed. Fix: {sys.executable} -m pip install -r device/requirements-score.txt"
        ) from None
    used = slots.active(settings.model.folder)
    if not used:
        raise Bad(f"no model in {settings.model.folder}. Fix: set model.url, then python -m device sync")
    try:
        card = golden.check(os.path.join(settings.model.folder, used["slot"]), settings)
    except golden.Slow as error:
        raise Bad(
            f"version {used['version']}: {error}. Fix: heat, power (the check above), other programs (top); "
            "or a larger model.budget_ms"
        ) from error
    except (golden.Failed, ValueError) as error:
        raise Bad(
            f"version {used['version']}: {error}. "
            "Fix: sudo systemctl restart lakevision-score, which returns to the last good version"
        ) from error
    row = card["table"][card["variant"]]
    return (
        f"LiteRT {version}; version {used['version']} scores its golden photographs here as at home "
        f"(within {row['largest']:.1g}), {row['p50_ms']:.1f} ms a frame"
    )


def next_model(settings: Settings) -> str:
    """The source of models responds."""
    from device.model import source

    if not settings.model.url:
        return "model.url is empty: no other model will come"
    try:
        pointer = source.open_source(settings).look("")
    except (types.Denied, types.Unavailable, types.Refused) as error:
        raise Bad(
            f"{error}. Fix: model.url, model.name and model.alias; credentials as in README.md; the network"
        ) from error
    version = pointer.version if pointer else "unchanged"
    return f"{settings.model.alias} is version {version} at {settings.model.url}"


def actions(settings: Settings) -> str:
    """The requirements of each action are met; no action is run."""
    config = settings.act
    if config.command and not shutil.which(config.command[0]):
        raise Bad(f"act.command: {config.command[0]} is missing or cannot be run. Fix: its full path, chmod +x")
    if config.gpio and not importlib.util.find_spec("gpiozero"):
        raise Bad("act.gpio needs gpiozero. Fix: sudo apt-get install python3-gpiozero python3-lgpio")
    ways = [name for name in ("command", "gpio", "mqtt", "webhook") if getattr(config, name)]
    return f"{', '.join(ways)}; hold-off {config.hold_off_s:g} s" if ways else "none asked for"


def services(settings: Settings) -> str:
    """systemd runs all services that the settings need."""
    if not shutil.which("systemctl") or not os.path.isdir("/run/systemd/system"):
        return "no systemd here"
    wanted = {
        "lakevision-capture": not settings.score.camera,
        "lakevision-upload": True,
        "lakevision-score": settings.score.enabled,
    }
    done = subprocess.run(["systemctl", "is-active", *wanted], capture_output=True, text=True, timeout=10)
    states = dict(zip(wanted, done.stdout.split()))  # noqa: B905  strict needs Python 3.10
    missing = [unit for unit, needed in wanted.items() if needed and states.get(unit) != "active"]
    if missing:
        raise Bad(f"{states}. Fix: sudo systemctl enable --now {' '.join(missing)}; journalctl -u {missing[0]} -n 50")
    if settings.score.camera and states.get("lakevision-capture") == "active":
        raise Bad(
            "lakevision-capture runs, and score.camera is true: only one of them can hold the camera. "
            "Fix: sudo systemctl disable --now lakevision-capture, or score.camera = false"
        )
    return f"all {sum(wanted.values())} are active"
