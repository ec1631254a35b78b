"""What systemd sees: readiness, the watchdog, the units themselves; and the scripts that install them."""

import hashlib
import os
import re
import shutil
import stat
import subprocess
import sys

import harness
import pytest
from harness import ROOT, until

UNITS = ROOT / "device" / "systemd"
ANALYZE = shutil.which("systemd-analyze")
needs_analyze = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not here (apt install systemd)")


@needs_analyze
@pytest.mark.parametrize(
    "unit, limit", [("lakevision-capture", 1.3), ("lakevision-upload", 2.0), ("lakevision-score", 2.0)]
)
def test_exposure(unit, limit):
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager", str(UNITS / f"{unit}.service")],
        capture_output=True,
        text=True,
    )
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip(f"this systemd-analyze is too old: {done.stderr.strip()}")
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[1])
    print(f"{unit}: exposure {exposure}")
    assert exposure <= limit


@needs_analyze
@pytest.mark.parametrize("unit", ["lakevision-capture", "lakevision-upload", "lakevision-score"])
def test_verify(unit, tmp_path):
    text = (UNITS / f"{unit}.service").read_text().replace("/opt/lakevision/venv/bin/python", sys.executable)
    (tmp_path / f"{unit}.service").write_text(text)
    done = subprocess.run([ANALYZE, "verify", str(tmp_path / f"{unit}.service")], capture_output=True, text=True)
    said = [line for line in (done.stdout + done.stderr).splitlines() if unit in line]
    assert done.returncode == 0 and not said


def test_capture_has_no_network_and_only_upload_has_credentials():
    capture, upload = ((UNITS / f"lakevision-{name}.service").read_text() for name in ("capture", "upload"))
    assert "PrivateNetwork=yes" in capture and "LoadCredential" not in capture
    assert (
        "LoadCredential=store:/etc/lakevision/credentials" in upload and "ImportCredential" not in upload
    )  # systemd 252 has none
    for text in (capture, upload):
        assert "Wants=network-online" not in text and "time-sync" not in re.sub(r"#.*", "", text)


def test_ready_after_a_real_frame_and_the_watchdog_is_fed_by_frames(agent):
    agent.configure(capture={"interval_s": 3600.0})
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("capture", env=systemd.env(watchdog_s=0.6))
        until(
            lambda: systemd.heard().count("WATCHDOG=1") >= 4,
            "the watchdog is fed though the next frame is an hour away",
        )
        assert agent.stop(process) == 0
        assert systemd.heard()[0] == "READY=1" and systemd.heard()[-1] == "STOPPING=1"
    assert len(agent.acks()) == 1, "what only proves the camera is not kept"


def test_a_camera_that_hangs_starves_the_watchdog(agent):
    """Beneath the agent's own time-out too: nothing but a frame feeds it."""
    hang = "import time, device.camera.folder as f; real = f.Camera.capture; f.Camera.capture = lambda self: real(self) if self.frames < 1 else time.sleep(9)"
    agent.configure(camera={"timeout_s": 3.0}, capture={"interval_s": 0.1})
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("capture", driver=hang, env=systemd.env(watchdog_s=0.3))
        assert process.wait(20) != 0
        assert systemd.heard().count("WATCHDOG=1") == 1


def test_upload_says_ready_and_why_it_waits(agent):
    agent.configure(store={"url": str(agent.folder / "not mounted")})
    agent.run("capture", "--once")
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("upload", env=systemd.env(watchdog_s=60))
        until(lambda: any("not mounted is not there" in line for line in systemd.heard()), "the status tells")
        assert "READY=1" in systemd.heard() and "WATCHDOG=1" in systemd.heard()
        agent.stop(process)


def test_a_second_process_on_the_same_spool_is_refused(agent):
    agent.configure(capture={"interval_s": 0.2})
    process = agent.start("capture")
    until(lambda: agent.acks(), "the first one runs")
    done = agent.run("capture", "--once", check=False)
    assert done.returncode == 75 and "another capture is running" in done.stderr and "Traceback" not in done.stderr
    agent.stop(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("command", ["capture", "upload"])
def test_root_is_kept_out_of_the_services_spool(agent, command):
    """`sudo python -m device capture --once` would leave a frame that upload may not read, and that it would stumble over for ever."""
    agent.spool.mkdir()
    os.chown(agent.spool, 65534, 65534)
    done = agent.run(command, "--once", check=False)
    assert done.returncode == 77 and "sudo -u lakevision" in done.stderr and "Traceback" not in done.stderr
    assert not list(agent.spool.iterdir())


# ---- the scripts


def install(root, *options, script="install.sh"):
    done = subprocess.run(
        ["bash", str(ROOT / "device" / script), "--root", str(root), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHON": sys.executable},
    )
    if (
        "No matching distribution" in done.stderr
        or "ConnectionError" in done.stderr
        or "NewConnectionError" in done.stderr
    ):
        pytest.skip("no package index can be reached")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tree(root):
    return {
        str(path.relative_to(root)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in root.rglob("*")
        if path.is_file() and "venv" not in path.parts and "__pycache__" not in path.parts
    }


def test_install_twice_use_it_and_uninstall(tmp_path):
    """An empty environment with device/requirements.txt is enough, from a copy of device/ alone."""
    root = tmp_path / "card"
    assert "store.url" in install(root, "--camera", "simulated", "--reboot-after", "5")
    before = tree(root)
    credentials = root / "etc/lakevision/credentials"
    assert stat.S_IMODE(credentials.stat().st_mode) == 0o600
    assert (
        "StartLimitAction=reboot" in (root / "etc/systemd/system/lakevision-capture.service.d/reboot.conf").read_text()
    )

    (root / "etc/lakevision/device.toml").write_text(
        f'[camera]\nkind = "simulated"\n[spool]\npath = "{root}/var/lib/lakevision/spool"\nfree_mb = 0.0\n'
        f'[store]\nurl = "{root}/landing"\n'
    )
    assert install(root, "--camera", "simulated") == f"installed below {root}\n", "the second run changes nothing"
    after = tree(root)
    assert {name for name in before if before[name] != after.get(name)} == {"etc/lakevision/device.toml"}

    (root / "landing").mkdir()
    python, config = root / "opt/lakevision/venv/bin/python", root / "etc/lakevision/device.toml"
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    for command in (["capture", "--once"], ["upload", "--once"]):
        done = subprocess.run(
            [python, "-m", "device", "--config", config, *command],
            cwd=root / "opt/lakevision",
            env=clean,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((root / "landing").rglob("*.jpg"))) == 1

    assert "1 unsent" not in install(root, script="uninstall.sh")
    assert (
        not (root / "opt/lakevision").exists() and not list((root / "etc/systemd/system").iterdir()) and config.exists()
    )
    install(root, "--purge", script="uninstall.sh")
    install(root, "--purge", script="uninstall.sh")
    assert not (root / "etc/lakevision").exists() and not (root / "var/lib/lakevision").exists()


def test_install_follows_who_drives_the_camera(tmp_path):
    """score.camera = true moves the camera's rights and the reboot to lakevision-score, false moves them back.

    Packages are those of this interpreter.
    """
    root = tmp_path / "card"
    units, toml, venv = root / "etc/systemd/system", root / "etc/lakevision/device.toml", root / "opt/lakevision/venv"
    (venv / "bin").mkdir(parents=True)
    (venv / "bin/python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (venv / "bin/python").chmod(0o755)
    wanted = b"".join((ROOT / "device" / name).read_bytes() for name in ("requirements.txt", "requirements-score.txt"))
    version = subprocess.run([sys.executable, "--version"], capture_output=True).stdout
    (venv / ".ready").write_text(hashlib.sha256(wanted + version).hexdigest() + "\n")

    def drop_ins():
        return {str(path.relative_to(units)) for path in units.glob("*.d/*.conf")}

    install(root, "--camera", "picamera", "--score", "--reboot-after", "5")
    assert drop_ins() == {"lakevision-capture.service.d/legacy-camera.conf", "lakevision-capture.service.d/reboot.conf"}
    toml.write_text(toml.read_text() + "[score]\nenabled = true\ncamera = true\n")
    install(root)
    assert drop_ins() == {f"lakevision-score.service.d/{name}.conf" for name in ("camera", "legacy-camera", "reboot")}
    assert install(root) == f"installed below {root}\n", "the second run changes nothing"
    toml.write_text(toml.read_text().replace("camera = true", "camera = false"))
    install(root)
    assert drop_ins() == {"lakevision-capture.service.d/legacy-camera.conf", "lakevision-capture.service.d/reboot.conf"}
    install(root, "--reboot-after", "0")
    assert drop_ins() == {"lakevision-capture.service.d/legacy-camera.conf"}


@needs_analyze
def test_a_scorer_with_the_camera_keeps_its_guard_up(tmp_path):
    """camera.conf opens the camera's devices and no more: the same key twice in a unit, the later one holds."""
    unit = tmp_path / "lakevision-score.service"
    drop_in = (UNITS / "camera.conf").read_text()
    unit.write_text(
        (UNITS / "lakevision-score.service")
        .read_text()
        .replace("[Install]", drop_in + "\n[Install]")
        .replace("/opt/lakevision/venv/bin/python", sys.executable)
    )
    done = subprocess.run([ANALYZE, "verify", str(unit)], capture_output=True, text=True)
    assert done.returncode == 0 and not [
        line for line in (done.stdout + done.stderr).splitlines() if "lakevision-score" in line
    ]
    done = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--no-pager", str(unit)], capture_output=True, text=True
    )
    if "Unknown" in done.stderr or "unrecognized" in done.stderr:
        pytest.skip(f"this systemd-analyze is too old: {done.stderr.strip()}")
    exposure = float(re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)[1])
    print(f"score with the camera: exposure {exposure}")
    assert exposure <= 2.0
    devices = {line for line in drop_in.splitlines() if line.startswith("DeviceAllow=")}
    assert devices == {
        line
        for line in (UNITS / "lakevision-capture.service").read_text().splitlines()
        if line.startswith("DeviceAllow=")
    }


@pytest.mark.parametrize(
    "options", [["--camera", "webcam"], ["--reboot-after", "soon"], ["--bogus"], ["--camera"]], ids=" ".join
)
def test_install_refuses(tmp_path, options):
    done = subprocess.run(
        ["bash", str(ROOT / "device/install.sh"), "--root", str(tmp_path), *options], capture_output=True, text=True
    )
    assert done.returncode == 64 and not list(tmp_path.iterdir())


FORBIDDEN = ("tensorflow", "pandas", "mlflow", "boto3", "numpy", "yaml", "keras", "pyarrow", "pyspark")


@pytest.mark.parametrize(
    "command, also",
    [
        pytest.param("capture", ("obstore",), id="capture"),
        pytest.param("upload", ("PIL",), id="upload"),
        pytest.param("status", ("PIL", "obstore"), id="status"),
    ],
)
def test_only_what_is_needed_is_imported(agent, tmp_path, command, also):
    """Each process carries its own load only: no obstore in capture, no Pillow in upload."""
    agent.configure(
        store={"url": "s3://nowhere", "region": "us-east-1", "endpoint": "http://127.0.0.1:9", "allow_http": True}
    )
    agent.run("capture", "--once")
    watch = "import atexit; atexit.register(lambda: open({!r}, 'w').write('\\n'.join(sys.modules)))".format(
        str(tmp_path / "modules")
    )
    agent.run(command, *(["--once"] if command != "status" else []), driver=watch, check=False)
    loaded = {name.partition(".")[0] for name in (tmp_path / "modules").read_text().split()}
    assert not loaded & {*FORBIDDEN, *also}
    if command == "upload":
        assert "obstore" in loaded


def test_the_source_imports_nothing_else():
    """Cameras included: the standard library, Pillow, obstore, and the Pi's own packages inside functions, never at the top."""
    known = {"PIL", "obstore", "picamera", "picamera2", "tomli", "device", *sys.stdlib_module_names}
    scoring = {"model", "score", "bench.py"}
    paths = [
        path for path in (ROOT / "device").rglob("*.py") if path.relative_to(ROOT / "device").parts[0] not in scoring
    ]
    for path in [*paths, ROOT / "device" / "model" / "transform.py"]:
        text = path.read_text()
        assert set(re.findall(r"^\s*(?:from|import) (\w+)", text, re.MULTILINE)) <= known, path
        assert not re.findall(r"^(?:from|import) (?:picamera|obstore)", text, re.MULTILINE), (
            f"{path}: hardware or client at import"
        )
