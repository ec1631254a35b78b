"""Shared by the agent's tests: its processes, and the final reckoning of every frame."""

import hashlib
import io
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

SECRET = "verySecret/Key+of=tests"
ROOT = Path(__file__).resolve().parents[2]
SOAK = os.environ.get("LAKEVISION_SOAK") == "1"
LINE = re.compile(
    r"^(captured|dropped|uploaded|already there) (\S+) bytes=(\d+)(?: sha256=([0-9a-f]{64}))?", re.MULTILINE
)


@dataclass(frozen=True)
class Ack:
    """A frame that capture promised to keep, according to its journal."""

    key: str
    size: int
    sha256: str


def make_photos(folder, count=7, size=(96, 72), seed=3):
    """Writes `count` different JPEGs."""
    from PIL import Image

    rng = random.Random(seed)
    for index in range(count):
        pixels = (size[0] * (1 + index % 3), size[1] * (1 + index % 3))
        out = io.BytesIO()
        Image.frombytes("RGB", pixels, rng.randbytes(pixels[0] * pixels[1] * 3)).save(out, "JPEG", quality=60)
        (Path(folder) / f"photo_{index}.jpg").write_bytes(out.getvalue())


class Agent:
    """Settings in a file, commands as processes, and their journals in files (a kill would lose a pipe)."""

    def __init__(self, folder, photos):
        self.folder, self.spool = Path(folder), Path(folder) / "spool"
        self.config = self.folder / "device.toml"
        self.running = []
        self.settings = {
            "device": {"id": "porch-7"},
            "camera": {"kind": "folder", "folder": str(photos), "warm_up_s": 0.0, "timeout_s": 20.0},
            "capture": {"interval_s": 0.0},
            "spool": {"path": str(self.spool), "free_mb": 0.0},
            "store": {},
            "score": {},
            "model": {},
            "feedback": {},
            "act": {},
            "upload": {
                "timeout_s": 2.0,
                "connect_timeout_s": 1.0,
                "backoff_s": 0.05,
                "backoff_max_s": 0.2,
                "denied_pause_s": 0.3,
                "poll_s": 0.05,
            },
        }
        self.configure()

    def configure(self, **sections):
        """Changes settings: configure(store={"url": ...}). Takes effect at the next start."""
        for section, values in sections.items():
            self.settings[section].update(values)
        lines = []
        for section, values in self.settings.items():
            lines += [f"[{section}]", *(f"{key} = {_toml(value)}" for key, value in values.items())]
        self.config.write_text("\n".join(lines) + "\n")

    def use_bucket(self, bucket, port=None):
        """Sends uploads to an S3 bucket, through `port` if a proxy listens there."""
        self.configure(
            store={
                "url": f"s3://{bucket.name}/landing",
                "endpoint": f"http://127.0.0.1:{port or bucket.port}",
                "region": "us-east-1",
                "allow_http": True,
            }
        )

    def command(self, *arguments, driver=None):
        """The command line; driver: Python lines to run in that process before the agent's main()."""
        start = (
            ["-m", "device"]
            if driver is None
            else ["-c", f"import sys\n{driver}\nfrom device.__main__ import main\nsys.exit(main())"]
        )
        return [sys.executable, *start, arguments[0], "--config", str(self.config), *arguments[1:]]

    def run(self, *arguments, check=True, driver=None, timeout=120, env=None):
        """Runs a command to its end; a CompletedProcess with text."""
        done = subprocess.run(
            self.command(*arguments, driver=driver),
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            env={**os.environ, **(env or {})},
        )
        self._journal(arguments[0]).open("a").write(done.stdout + done.stderr)
        assert not check or done.returncode == 0, (
            f"{arguments} ended with {done.returncode}:\n{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
        )
        return done

    def start(self, *arguments, driver=None, env=None):
        """Starts a command in the background; a Popen."""
        with self._journal(arguments[0]).open("ab") as journal:
            process = subprocess.Popen(
                self.command(*arguments, driver=driver),
                cwd=ROOT,
                stdout=journal,
                stderr=journal,
                env={**os.environ, **(env or {})},
            )
        self.running.append(process)
        return process

    def stop(self, process):
        """Ends a process as systemd does; returns its exit status."""
        process.send_signal(signal.SIGTERM)
        return process.wait(30)

    def stop_all(self):
        for process in self.running:
            if process.poll() is None:
                process.kill()
                process.wait(10)

    def _journal(self, command):
        return self.folder / f"{command}.journal"

    def journal(self, command):
        """The whole output of a command so far."""
        path = self._journal(command)
        return path.read_text(errors="replace") if path.exists() else ""

    def acks(self, word="captured"):
        """The frames that capture promised ("captured") or named as dropped ("dropped")."""
        return [
            Ack(key, int(size), digest)
            for verb, key, size, digest in LINE.findall(self.journal("capture"))
            if verb == word and digest
        ]

    def waiting(self):
        """Names in ready/."""
        return sorted(os.listdir(self.spool / "ready")) if (self.spool / "ready").exists() else []

    def counters(self, command):
        from device.spool import records

        return records.read(self.spool / f"{command}.json")


def _toml(value):
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else repr(value)


def kill_all(process):
    """Kills a process and its descendants, as a power cut would."""

    def below(pid):
        try:
            with open(f"/proc/{pid}/task/{pid}/children") as file:
                children = [int(child) for child in file.read().split()]
        except OSError:
            children = []
        return [pid, *(grandchild for child in children for grandchild in below(child))]

    for pid in below(process.pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.wait()


def until(condition, what, seconds=60):
    """Waits until condition() is true; a failure names `what`."""
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"{what}: not within {seconds} s"
        time.sleep(0.02)
    return result


def reckon(agent, stored, answers_lost=False):
    """Checks the promise: each captured frame is stored exactly once, byte for byte, or counted as dropped.

    No frame may still wait. stored: {key: bytes} of the store, keys from device= on. answers_lost: responses of the
    store were lost, so the quota may have dropped some stored frames from the spool.
    """
    acks = {ack.key: ack for ack in agent.acks()}
    assert len(acks) == len(agent.acks()), "a key was promised twice"
    named = {ack.key for ack in agent.acks("dropped")}
    dropped = agent.counters("capture").get("dropped", 0)
    assert agent.waiting() == []
    assert not any(True for _ in (agent.spool / "dead").iterdir()), "nothing here deserved dead/"
    digests = {key: hashlib.sha256(data).hexdigest() for key, data in stored.items()}
    assert len(set(digests.values())) == len(digests), "one frame lies under two keys"
    wrong = [key for key, digest in digests.items() if key in acks and acks[key].sha256 != digest]
    assert not wrong, f"stored with other bytes: {wrong[:3]}"
    assert answers_lost or not named & digests.keys(), "stored, and counted as dropped as well"
    # After a kill between the count of a drop and its journal line, the counter is one ahead of the lines.
    unnamed = [key for key in acks if key not in digests and key not in named]
    assert len(named) <= dropped and len(unnamed) <= dropped - len(named), (
        f"lost: {unnamed[:3]} ({len(unnamed)} missing, {dropped} dropped, {len(named)} named)"
    )
    for data in stored.values():
        assert data[:2] == b"\xff\xd8" and data[-2:] == b"\xff\xd9"
    return len(acks)


def read_folder(folder):
    """{key: bytes} of a local landing zone, without the hidden leftovers of killed uploads."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in Path(folder).rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def fill_landing(agent, landing, frames):
    """Fills a local landing zone from the simulated camera, with real processes; returns (landing, acks)."""
    landing.mkdir()
    agent.configure(
        camera={"kind": "simulated", "labelled": True, "size": [160, 120]},
        store={"url": str(landing)},
        device={"id": "porch-1", "position": [48.2082, 16.3738, 171.0]},
    )
    agent.run("capture", "--frames", str(frames))
    agent.run("upload", "--once")
    return landing, agent.acks()


def free_port():
    """A free port of loopback."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port):
    """True if a server listens on the port."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True


class NotifySocket:
    """systemd's end of sd_notify."""

    def __init__(self, folder):
        self.path = str(Path(folder) / "notify")
        self.lines = []

    def __enter__(self):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(self.path)
        self.socket.setblocking(False)
        return self

    def __exit__(self, *_):
        self.socket.close()

    def env(self, watchdog_s=None):
        return {"NOTIFY_SOCKET": self.path, **({"WATCHDOG_USEC": str(int(watchdog_s * 1e6))} if watchdog_s else {})}

    def heard(self):
        """All lines received so far."""
        while True:
            try:
                self.lines += self.socket.recv(4096).decode().split("\n")
            except BlockingIOError:
                return self.lines
