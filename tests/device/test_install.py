"""install.sh and uninstall.sh."""

import hashlib
import os
import stat
import subprocess
import sys

import pytest
from harness import ROOT


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


@pytest.mark.slow
def test_install_twice_run_and_uninstall(tmp_path):
    """A copy of device/ alone and an empty environment with device/requirements.txt are enough."""
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


def test_install_moves_permissions_with_camera(tmp_path):
    """score.camera = true moves the camera's permissions and the reboot to lakevision-score, false moves them back.

    The packages are those of this interpreter.
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


@pytest.mark.parametrize(
    "options", [["--camera", "webcam"], ["--reboot-after", "soon"], ["--bogus"], ["--camera"]], ids=" ".join
)
def test_install_refuses_wrong_option(tmp_path, options):
    done = subprocess.run(
        ["bash", str(ROOT / "device/install.sh"), "--root", str(tmp_path), *options], capture_output=True, text=True
    )
    assert done.returncode == 64 and not list(tmp_path.iterdir())
