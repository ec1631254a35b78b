"""What scoring on the device costs, against the bare interpreter in the same run.

    python tests/bench/device_score.py              # 4 minutes

of_bare_loop     frames/s of `device score` from unscored/ to safe results, over a bare loop of decode + transform +
                 invoke with LiteRT on the same bytes in memory, with the allocator set as score sets it (without, the
                 bare loop would lose a fifth to page faults). score reads, locks and hashes each file besides, measures
                 its light and writes its line; a thread of it syncs batches and deletes frames, and the last batch of
                 the twenty is waited for
score_mb         peak resident memory of the scorer in MB
first_score_s    from the start of the process to the first frame scored, in seconds: Python, imports, the model's check
                 and load

Photographs are 600 x 600 with a camera's noise, 205 kB; the model is a small CNN at 96 x 96, about what 04_deploy
exports. Both sides run in processes of their own, in turns; the middle one of the pairs counts. The last line is JSON.
"""

import importlib.util
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "device")]
import bundles  # noqa: E402
import harness  # noqa: E402

FRAMES, BARE_FRAMES, PAIRS = 2000, 400, 5
BARE = """
import sys, time, glob
from device import memory
from device.model import edge_model, transform
memory.keep()  # as the scorer does: else page faults make this loop slower than the scorer with all its files
folder, count = sys.argv[1], int(sys.argv[3])
frames = [open(path, "rb").read() for path in sorted(glob.glob(sys.argv[2] + "/*.jpg"))]
loaded = edge_model.load(folder, sys.argv[4])
edge_model.probabilities(loaded, frames[0])
began = time.perf_counter()
for index in range(count):
    edge_model.invoke(loaded, transform.pixels(frames[index % len(frames)], loaded.transform))
print(count / (time.perf_counter() - began))
"""
# Runs the scorer over all that waits; prints its rate from the first frame's result to the end of the last batch, its
# memory, and when it was first.
TIMED = """
import sys, time
from device import __main__
from device.score import results
first, last = [], []
add, send = results.Batch.add, results.Desk.send
def added(*arguments):
    add(*arguments)
    if not first:
        first.extend((time.perf_counter(), time.time()))
def sent(*arguments):
    done = send(*arguments)
    last[:] = [time.perf_counter()]
    return done
results.Batch.add, results.Desk.send = added, sent
status = __main__.main(sys.argv[1:])
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("seconds", last[0] - first[0], "mb", peak * 1024 / 1e6, "first", first[1])
sys.exit(status)
"""


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def photographs(folder):
    """The noisy photographs of the agent's own benchmark."""
    spec = importlib.util.spec_from_file_location("agent_bench", Path(__file__).with_name("device.py"))
    agent_bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(agent_bench)
    return agent_bench.photos(folder, (600, 600))


def scorer(agent, frames):
    """(frames/s, MB, seconds to the first) of the scorer over `frames` frames that capture took."""
    agent.run("capture", "--frames", str(frames))
    began = time.time()
    out = python(TIMED, "score", "--config", agent.config, "--once")
    seconds, megabytes, first = map(
        float, re.search(r"^seconds (\S+) mb (\S+) first (\S+)$", out, re.MULTILINE).groups()
    )
    assert not list((agent.spool / "unscored").iterdir())
    for path in (agent.spool / "ready").iterdir():
        path.unlink()
    return (frames - 1) / seconds, megabytes, first - began


def main():
    ratios, rates, bare_rates, firsts, memory = [], [], [], [], 0
    with rig.scratch_folder() as folder:
        (folder / "photos").mkdir()
        print(f"frames {photographs(folder / 'photos') / 1000:.0f} kB", flush=True)
        models = bundles.build(folder / "models")
        agent = harness.Agent(folder, folder / "photos")
        agent.configure(
            score={"enabled": True},
            model={"folder": str(folder / "model"), "url": str(folder / "edge")},
            feedback={"send": "none"},
        )
        bundles.publish(models, folder / "edge", "1", "cnn", variants=("float32",))
        agent.run("sync")
        for turn in range(PAIRS):

            def bare():
                return float(python(BARE, folder / "model" / "a", folder / "photos", BARE_FRAMES, "float32"))

            later = bare() if turn % 2 else None
            rate, megabytes, first = scorer(agent, FRAMES)
            bare_rate = later or bare()
            ratios.append(rate / bare_rate)
            rates.append(rate)
            bare_rates.append(bare_rate)
            firsts.append(first)
            memory = max(memory, megabytes)
        shutil.rmtree(folder / "spool")
    figures = {
        "score_mb": round(memory, 1),
        "first_score_s": round(statistics.median(firsts), 2),
        "frames_s": round(statistics.median(rates), 1),
        "bare_frames_s": round(statistics.median(bare_rates), 1),
        "lowest": round(min(ratios), 3),
        "highest": round(max(ratios), 3),
    }
    print(figures)
    rig.print_result("device_score", {"of_bare_loop": round(statistics.median(ratios), 3)}, **figures)


if __name__ == "__main__":
    main()
