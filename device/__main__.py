"""The agent's commands.

    python -m device capture      take photographs into the spool (--once, --dry-run, --frames N)
    python -m device upload       send the spool to the store (--once, --dry-run)
    python -m device score        score the captured frames, act on the results, pass frames on to upload (--once);
                                  with score.camera = true score also drives the camera (--frames N) instead of capture
    python -m device sync         look for a new model, download and check it (score runs this by itself)
    python -m device bench        show the cost of each variant of the model on this device (--again: measure now)
    python -m device status       one screen: last frame, spool, counters, clock, camera, store
    python -m device doctor       check this device, and print a fix for each fault

All take --config FILE; the default is /etc/lakevision/device.toml. That file overlays device/defaults.toml.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

from device import config
from device.spool.spool import SpoolBusy

# The modules of the commands; every other command is a module of this folder.
COMMANDS = {"upload": "device.store.upload", "score": "device.score.score", "sync": "device.model.sync"}
ONCE = {
    "capture": "take one frame and stop",
    "upload": "empty the spool and stop",
    "score": "score all waiting frames and stop",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="the owner's settings (TOML)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("capture", "take photographs into the spool"),
        ("upload", "send the spool to the store"),
        ("score", "score the captured frames, and act on the results"),
        ("sync", "look for a new model, download and check it"),
        ("bench", "show the cost of each variant of the model on this device"),
        ("status", "show the state of the agent on one screen"),
        ("doctor", "check this device"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the owner's settings (TOML)")
        if name in ONCE:
            command.add_argument("--once", action="store_true", help=ONCE[name])
        if name == "bench":
            command.add_argument("--again", action="store_true", help="measure now, and keep the result")
        if name in ("capture", "upload"):
            command.add_argument("--dry-run", action="store_true", help="show the work without doing it")
        if name in ("capture", "score"):
            command.add_argument(
                "--frames",
                type=int,
                metavar="N",
                help="stop after N frames" + (", all scored; with score.camera = true" if name == "score" else ""),
            )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status.

    By sysexits.h: 78 for a wrong setting, 75 for a spool in use, 77 for missing permissions.
    """
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        settings = config.load(options.pop("config"))
    except (config.ConfigError, OSError) as error:
        print(f"config: {error}", file=sys.stderr)
        return 78
    try:
        # Imported only now, because upload needs no Pillow and capture no obstore.
        return importlib.import_module(COMMANDS.get(command, f"device.{command}")).run(settings, **options)
    except SpoolBusy as error:
        print(error, file=sys.stderr)
        return 75
    except PermissionError as error:
        print(f"{error.filename}: {error.strerror}. Run it as the agent does: sudo -u lakevision ...", file=sys.stderr)
        return 77


if __name__ == "__main__":
    sys.exit(main())
