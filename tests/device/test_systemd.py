"""The systemd units: confinement, network and credentials."""

import re
import shutil
import subprocess
import sys

import pytest
from harness import ROOT

UNITS = ROOT / "device" / "systemd"


ANALYZE = shutil.which("systemd-analyze")


needs_analyze = pytest.mark.skipif(not ANALYZE, reason="systemd-analyze is not installed (apt install systemd)")


@needs_analyze
@pytest.mark.parametrize(
    "unit, limit", [("lakevision-capture", 1.3), ("lakevision-upload", 2.0), ("lakevision-score", 2.0)]
)
def test_unit_exposure_is_below_limit(unit, limit):
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
def test_unit_passes_systemd_verify(unit, tmp_path):
    text = (UNITS / f"{unit}.service").read_text().replace("/opt/lakevision/venv/bin/python", sys.executable)
    (tmp_path / f"{unit}.service").write_text(text)
    done = subprocess.run([ANALYZE, "verify", str(tmp_path / f"{unit}.service")], capture_output=True, text=True)
    complaints = [line for line in (done.stdout + done.stderr).splitlines() if unit in line]
    assert done.returncode == 0 and not complaints


def test_capture_has_no_network_and_no_credentials():
    capture, upload = ((UNITS / f"lakevision-{name}.service").read_text() for name in ("capture", "upload"))
    assert "PrivateNetwork=yes" in capture and "LoadCredential" not in capture
    assert (
        "LoadCredential=store:/etc/lakevision/credentials" in upload and "ImportCredential" not in upload
    )  # systemd 252 has none
    for text in (capture, upload):
        assert "Wants=network-online" not in text and "time-sync" not in re.sub(r"#.*", "", text)


@needs_analyze
def test_scorer_with_camera_stays_confined(tmp_path):
    """camera.conf opens only the camera's devices. If a unit has a key twice, the later value counts."""
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
