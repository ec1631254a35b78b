"""Trial of a model on its golden photographs, on this device, in a process of its own.

    python -m device.model.golden FOLDER VARIANT THREADS       # prints one JSON line

A crash, a hang or too much memory is a failure like any other and cannot affect the scorer. The golden scores come from
the same variant on the machine that made it; manifest.json gives the tolerance for a device. The same run is the
benchmark: the fastest variant depends on the processor, so it is measured.
"""

from __future__ import annotations

import glob
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from device import clock
from device.model import edge_model

TIMED = 40  # least number of frames timed for each variant
MEMORY = 2 << 30  # bytes of address space that a model may ask for
HOT = 80.0  # degrees Celsius from which a Pi's processor slows down


class Failed(Exception):
    """No variant of the model can be used here; the message gives the reason for each."""


class Slow(Failed):
    """A variant has the right scores, or did not finish: only its time is against it.

    milliseconds: the best p50, None without an answer. board: of heat().
    """

    def __init__(self, message: str, milliseconds: float | None, board: dict[str, Any]) -> None:
        super().__init__(message)
        self.milliseconds, self.board = milliseconds, board


def check(folder: str | os.PathLike[str], settings: Any) -> dict[str, Any]:
    """Tries each variant. Returns {"variant": the fastest that passes, "table": {variant: figures}, "version", "at",
    ...}.

    Raises Slow, Failed, edge_model.BadModel.
    """
    manifest = edge_model.read_manifest(str(folder))
    table = {variant: _try(folder, variant, settings) for variant in manifest["variants"]}
    good = [variant for variant, figures in table.items() if not figures["failed"]]
    board = heat()
    if not good:
        words = (
            "; ".join(f"{variant}: {figures['failed']}" for variant, figures in table.items())
            or "the manifest names no variant"
        )
        slow = [figures for figures in table.values() if figures.get("slow")]
        if slow:
            raise Slow(words, min((figures["p50_ms"] for figures in slow if "p50_ms" in figures), default=None), board)
        raise Failed(words)
    return {
        "variant": min(good, key=lambda variant: table[variant]["p50_ms"]),
        "version": str(manifest["version"]),
        "table": table,
        "board": board,
        "at": clock.now().isoformat(),
    }


def _try(folder: str | os.PathLike[str], variant: str, settings: Any) -> dict[str, Any]:
    command = [sys.executable, "-m", "device.model.golden", str(folder), variant, str(settings.score.threads)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=settings.model.check_s,
            env=environment(),
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"no answer within model.check_s = {settings.model.check_s:g} s", "slow": True}
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return {"failed": f"its process ended with status {done.returncode}: {last[:300]}"}
    try:
        figures = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"failed": f"its process printed {done.stdout[-80:]!r}"}
    if not figures["failed"] and figures["p50_ms"] > settings.model.budget_ms:
        figures.update(
            slow=True, failed=f"{figures['p50_ms']:.0f} ms a frame, and model.budget_ms is {settings.model.budget_ms:g}"
        )
    return figures


def environment() -> dict[str, str]:
    """The environment of this process, in which `python -m device` finds this package from any folder."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(
            [str(Path(__file__).resolve().parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
        ),
    }


def measure(folder: str, variant: str, threads: int) -> dict[str, Any]:
    """Figures of one variant, in this process.

    largest: difference to the golden scores. p50_ms, p90_ms, p99_ms. memory_mb. failed: the reason, or "".
    """
    manifest = edge_model.read_manifest(folder)
    loaded = edge_model.load(folder, variant, threads)
    tolerance = manifest["variants"][variant]["tolerance"]
    photographs = [
        (Path(folder, golden["file"]).read_bytes(), golden["scores"][variant]) for golden in manifest["golden"]
    ]
    if not photographs:
        raise edge_model.BadModel(f"{folder}: no golden photographs, so nothing can show that the model works here")
    largest, times, failed = 0.0, [], ""
    for _ in range(max(2, -(-TIMED // len(photographs)))):
        for data, wanted in photographs:
            began = time.perf_counter()
            scores = edge_model.probabilities(loaded, data)
            times.append(1000 * (time.perf_counter() - began))
            # NaN is not larger than the tolerance, but it is not within it either.
            differences = [abs(score - want) for score, want in zip(scores, wanted)]  # noqa: B905  their lengths are compared below
            if len(scores) != len(wanted) or not all(difference <= tolerance for difference in differences):
                failed = (
                    f"scores {_rounded(scores)}, but {_rounded(wanted)} at home, and the tolerance is {tolerance:g}"
                )
            largest = max([largest, *differences])
        if failed:
            break
    times.sort()
    with open("/proc/self/status") as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
    return {
        "failed": failed,
        "largest": largest,
        "tolerance": tolerance,
        "frames": len(times),
        "memory_mb": round(peak * 1024 / 1e6, 1),
        **{f"p{share}_ms": round(times[min(len(times) - 1, len(times) * share // 100)], 3) for share in (50, 90, 99)},
    }


def _rounded(scores: Sequence[float]) -> list[float]:
    return [round(score, 4) for score in scores]


def heat() -> dict[str, Any]:
    """{"temperature_c", "throttled"} of the board, None if unknown. throttled: vcgencmd's bits, "0x0" is well.

    The units hide the device file of vcgencmd, so a service knows only the temperature.
    """
    temperature: float | None = None
    throttled: str | None = None
    try:
        for path in sorted(glob.glob("/sys/class/thermal/thermal_zone0/temp")):
            with open(path) as file:
                temperature = int(file.read()) / 1000
        if shutil.which("vcgencmd"):
            answer = subprocess.run(["vcgencmd", "get_throttled"], capture_output=True, text=True, timeout=10).stdout
            found = re.search("throttled=(0x[0-9a-fA-F]+)", answer)
            throttled = found[1] if found else None
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        # A missing temperature must not cost a frame.
        print(f"the board's heat: {error}", file=sys.stderr, flush=True)
    return {"temperature_c": temperature, "throttled": throttled}


def hindered(board: dict[str, Any]) -> str:
    """Why the board is slowed down at this moment, "" if nothing shows that. board: of heat()."""
    # Bits 0 to 3 of get_throttled mean now, bits 16 to 19 since boot (Raspberry Pi documentation, vcgencmd).
    if board["throttled"] and int(board["throttled"], 16) & 0xF:
        return f"throttled {board['throttled']}"
    return f"{board['temperature_c']:.0f} C" if (board["temperature_c"] or 0) >= HOT else ""


def main(folder: str, variant: str, threads: str) -> int:
    """The trial process. Exit status 1 if the model cannot be loaded; the reason is the last line of stderr."""
    _step_back()
    try:
        print(json.dumps(measure(folder, variant, int(threads))))
    except (ValueError, OSError, KeyError) as error:  # BadModel and BadImage are ValueErrors
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


def _step_back() -> None:
    """Lowers the priority of this process, and makes it the first to be killed.

    systemd's unit forbids some of these steps and bounds the memory itself, so none of them is required.
    """

    def die_first() -> None:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("900")

    for step in (lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)), lambda: os.nice(5), die_first):
        try:
            step()
        except (OSError, ValueError) as error:
            print(f"golden: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
