"""The agent's commands.

    python -m device capture      take photographs into the spool (--once, --dry-run, --frames N)
    python -m device upload       send the spool to the store (--once, --dry-run)
    python -m device score        score what capture took, act on it, pass on what should come home (--once); with score.camera = true
                                  it drives the camera as well (--frames N), and capture is not run
    python -m device sync         look for a new model, fetch and check it (score does this by itself)
    python -m device bench        what each variant of the model costs on this device (--again: measured anew)
    python -m device status       one screen: last frame, spool, counters, clock, camera, store
    python -m device doctor       check this device, and say how to fix what is wrong

All take --config FILE; without it /etc/lakevision/device.toml lies over device/defaults.toml.
"""

import argparse
import importlib
import sys

from device import config
from device.spool.spool import SpoolBusy

COMMANDS = {
    "upload": "device.store.upload",
    "score": "device.score.score",
    "sync": "device.model.sync",
}  # the others are modules of this folder
ONCE = {
    "capture": "take one frame and stop",
    "upload": "empty the spool and stop",
    "score": "score all that waits and stop",
}


def _parser():
    parser = argparse.ArgumentParser(
        prog="python -m device", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", metavar="FILE", help="the owner's settings (TOML)")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, words in (
        ("capture", "take photographs into the spool"),
        ("upload", "send the spool to the store"),
        ("score", "score what capture took, and act on it"),
        ("sync", "look for a new model, fetch and check it"),
        ("bench", "what each variant of the model costs on this device"),
        ("status", "one screen of what is going on"),
        ("doctor", "check this device"),
    ):
        command = commands.add_parser(name, help=words)
        command.add_argument("--config", metavar="FILE", default=argparse.SUPPRESS, help="the owner's settings (TOML)")
        if name in ONCE:
            command.add_argument("--once", action="store_true", help=ONCE[name])
        if name == "bench":
            command.add_argument("--again", action="store_true", help="measure now, and remember that")
        if name in ("capture", "upload"):
            command.add_argument("--dry-run", action="store_true", help="say what would be done, and do nothing")
        if name in ("capture", "score"):
            command.add_argument(
                "--frames",
                type=int,
                metavar="N",
                help="stop after N frames" + (", all scored; with score.camera = true" if name == "score" else ""),
            )
    return parser


def main(arguments=None):
    """Runs one command; returns the exit status, by sysexits.h: 78 for a setting that can't be, 75 for a spool in use, 77 for a lack of rights."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        settings = config.load(options.pop("config"))
    except (config.ConfigError, OSError) as error:
        print(f"config: {error}", file=sys.stderr)
        return 78
    try:
        # Imported only now: upload has no use for Pillow, nor capture for obstore.
        return importlib.import_module(COMMANDS.get(command, f"device.{command}")).run(settings, **options)
    except SpoolBusy as error:
        print(error, file=sys.stderr)
        return 75
    except PermissionError as error:
        print(f"{error.filename}: {error.strerror}. Run it as the agent does: sudo -u lakevision ...", file=sys.stderr)
        return 77


if __name__ == "__main__":
    sys.exit(main())
