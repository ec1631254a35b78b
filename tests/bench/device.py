"""What the capture agent costs, against the limit of the machine in the same run.

    python tests/bench/device.py              # 2 minutes

capture_of_write      frames/s that capture takes from a replayed folder into the spool, over a bare loop of write +
                      fsync of the same bytes
upload_of_obstore     frames/s that upload sends from the spool to an S3 server on loopback, over a bare loop of
                      obstore.put from memory, one after the other. upload reads, hashes and deletes each file besides,
                      and has two frames under way; the server, Python under one lock, is what limits both
capture_mb, upload_mb peak resident memory of each process in MB; import_ms of each

Both sides of a ratio run in processes of their own, one after the other and in turns first; the middle one of seven
pairs counts. The last line is JSON.
"""

import io
import os
import random
import re
import shutil
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import rig

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "device")]
import harness  # noqa: E402
import s3  # noqa: E402

SIZES = {"600x600": (600, 600), "1920x1080": (1920, 1080)}
FRAMES, UPLOADS, PAIRS = 600, 300, 7

BARE_WRITE = """
import os, sys, time, glob
folder, out, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
frames = [open(path, "rb").read() for path in sorted(glob.glob(folder + "/*.jpg"))]
began = time.perf_counter()
for index in range(count):
    file = os.open(f"{out}/{index}", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    os.write(file, frames[index % len(frames)])
    os.fsync(file)
    os.close(file)
print(count / (time.perf_counter() - began))
"""
BARE_PUT = """
import sys, time, os, glob, obstore
from obstore.store import from_url
folder, url, endpoint, count = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
frames = [open(path, "rb").read() for path in sorted(glob.glob(folder + "/*.jpg"))]
store = from_url(url, config={"aws_endpoint": endpoint, "aws_region": "us-east-1"}, client_options={"allow_http": True})
began = time.perf_counter()
for index in range(count):
    obstore.put(store, f"bare/{os.getpid()}/{index}.jpg", frames[index % len(frames)], mode="create")
print(count / (time.perf_counter() - began))
"""
# Runs a command of the agent; the last line holds the frames per second of its loop and its peak memory.
# The replayed files are in memory, as for the bare loop: reading them is not a cost of capture.
TIMED = """
import functools, pathlib, sys, time
from device import __main__
from {package} import {module}
pathlib.Path.read_bytes = functools.lru_cache(pathlib.Path.read_bytes)
times = []
real_say = {module}.say
def say(line, file=None):
    real_say(line, file)
    if line.startswith("{word} "):
        times.append(time.perf_counter())
{module}.say = say
status = __main__.main(sys.argv[1:])
# Not ru_maxrss: a child starts with its parent's value.
peak = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
print("rate", (len(times) - 1) / (times[-1] - times[0]), "mb", peak * 1024 / 1e6)
sys.exit(status)
"""


def photos(folder, size, count=8):
    """Writes JPEGs of the simulated camera, with noise up to the size of real ones; returns their mean size in bytes.

    205 kB at 600x600.
    """
    from PIL import Image, ImageChops

    from device.simulation.porch import Scene, picture

    rng = random.Random(1)
    for index in range(count):
        image = picture(Scene("porch-1", datetime(2026, 3, 2, 12, tzinfo=UTC), index % 2 == 0, index, size=size))
        noise = Image.frombytes("RGB", size, rng.randbytes(size[0] * size[1] * 3)).point(lambda value: value // 2)
        out = io.BytesIO()
        ImageChops.add(image, noise, 1, -64).save(out, "JPEG", quality=85)
        (folder / f"{index}.jpg").write_bytes(out.getvalue())
    return sum(path.stat().st_size for path in folder.iterdir()) / count


def python(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def timed(module, word, config, *arguments):
    out = python(
        TIMED.format(module=module, package="device.store" if module == "upload" else "device", word=word),
        module,
        "--config",
        config,
        *arguments,
    )
    rate, megabytes = re.search(r"^rate (\S+) mb (\S+)$", out, re.MULTILINE).groups()
    return float(rate), float(megabytes)


def import_ms(module):
    """Milliseconds that importing the module adds to Python's start, the best of five."""

    def run(code):
        began = time.perf_counter()
        python(code)
        return time.perf_counter() - began

    return 1000 * (min(run(f"import {module}") for _ in range(5)) - min(run("pass") for _ in range(5)))


def in_turns(turn, first, second):
    """The results of both. They alternate in going first, because the disk's journal and the server keep a state."""
    if turn % 2:
        later = second()
        return first(), later
    return first(), second()


def capture_pair(folder, name, turn):
    """(bare frames/s, capture's frames/s, capture's peak memory in MB)."""
    work = folder / f"{name}-{turn}"
    (work / "bare").mkdir(parents=True)
    agent = harness.Agent(work, folder / name)
    bare, (rate, megabytes) = in_turns(
        turn,
        lambda: float(python(BARE_WRITE, folder / name, work / "bare", FRAMES)),
        lambda: timed("capture", "captured", agent.config, "--frames", FRAMES),
    )
    shutil.rmtree(work)
    return bare, rate, megabytes


def upload_pair(folder, name, port, turn):
    """(bare frames/s, upload's frames/s, upload's peak memory in MB)."""
    bucket = s3.Bucket.make(port, f"bench-{turn}")
    work = folder / f"up-{name}-{turn}"
    work.mkdir()
    agent = harness.Agent(work, folder / name)
    agent.use_bucket(bucket)
    agent.run("capture", "--frames", str(UPLOADS))
    other = s3.Bucket.make(port, f"bare-{turn}")
    bare, (rate, megabytes) = in_turns(
        turn,
        lambda: float(python(BARE_PUT, folder / name, f"s3://{other.name}", f"http://127.0.0.1:{port}", UPLOADS)),
        lambda: timed("upload", "uploaded", agent.config, "--once"),
    )
    shutil.rmtree(work)
    return bare, rate, megabytes


def summary(pairs):
    """(text of the ratios, median ratio, peak memory in MB) of a list of pairs."""
    ratios = [rate / bare for bare, rate, _ in pairs]
    memory = max(megabytes for *_, megabytes in pairs)
    middle = statistics.median(ratios)
    return f"ratio {middle:.2f} ({min(ratios):.2f} to {max(ratios):.2f}), {memory:.0f} MB", middle, memory


def bench_capture(folder, name, count):
    """(median ratio of capture over bare write + fsync, capture's peak memory in MB)."""
    pairs = [capture_pair(folder, name, turn) for turn in range(count)]
    text, ratio, memory = summary(pairs)
    rate, bare = statistics.median(rate for _, rate, _ in pairs), statistics.median(bare for bare, *_ in pairs)
    print(f"capture  {name:10} {rate:7.0f} frames/s, bare write + fsync {bare:7.0f}, {text}", flush=True)
    return ratio, memory


def bench_upload(folder, name, port, count):
    """(median ratio of upload over bare obstore puts, upload's peak memory in MB)."""
    pairs = [upload_pair(folder, name, port, turn) for turn in range(count)]
    text, ratio, memory = summary(pairs)
    rate = statistics.median(rate for _, rate, _ in pairs)
    print(f"upload   {name:10} {rate:7.0f} frames/s, bare obstore {text}", flush=True)
    return ratio, memory


def simulated_memory(folder):
    """Peak memory in MB of capture with the simulated camera at 1920x1080; drawing is the most expensive source."""
    work = folder / "simulated"
    work.mkdir()
    agent = harness.Agent(work, folder)
    agent.configure(camera={"kind": "simulated", "size": [1920, 1080]})
    return timed("capture", "captured", agent.config, "--frames", 12)[1]


def main():
    os.environ.update(AWS_ACCESS_KEY_ID="bench", AWS_SECRET_ACCESS_KEY="bench")
    ratios, capture_mb, upload_mb = {}, 0, 0
    with rig.scratch_folder() as folder, s3.moto_server() as port:
        for name, size in SIZES.items():
            (folder / name).mkdir()
            print(f"frames   {name:10} {photos(folder / name, size) / 1000:.0f} kB", flush=True)
            ratio, memory = bench_capture(folder, name, PAIRS)
            ratios["capture_of_write" + ("" if name == "600x600" else f"_{name}")] = round(ratio, 3)
            capture_mb = max(capture_mb, memory)
            ratio, memory = bench_upload(folder, name, port, PAIRS)
            ratios["upload_of_obstore" + ("" if name == "600x600" else f"_{name}")] = round(ratio, 3)
            upload_mb = max(upload_mb, memory)
        drawn = simulated_memory(folder)
    figures = {
        "capture_mb": round(capture_mb, 1),
        "upload_mb": round(upload_mb, 1),
        "capture_simulated_1080p_mb": round(drawn, 1),
        "import_capture_ms": round(import_ms("device.capture")),
        "import_upload_ms": round(import_ms("device.store.upload, obstore.store")),
    }
    print(figures)
    rig.print_result("device", ratios, **figures)


if __name__ == "__main__":
    main()
