"""What all benchmarks share: a scratch folder, and the last line of the output."""

import json
import os
import platform
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """A folder on the checkout's disk: /tmp may be in memory, and a sync costs nothing there."""
    local = ROOT / ".local"
    local.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=local) as scratch:
        yield Path(scratch)


def print_result(bench: str, ratios: dict[str, float], **figures: object) -> None:
    """The last line: JSON of the benchmark's name, its ratios and the machine. figures: those of the run."""
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
    print(json.dumps({"bench": bench, "ratios": ratios, "rig": {**machine, **figures}}))
