"""Doctor's checks."""

import subprocess

import pytest
from steps import doctor as examine
from steps import ready

from device import config, doctor


def test_failed_check_does_not_hide_others(agent, tmp_path):
    """With everything broken at once, each check still reports its own fix."""
    (tmp_path / "file").write_text("")
    agent.configure(camera={"folder": str(tmp_path / "nothing")}, spool={"path": str(tmp_path / "file" / "spool")})
    done = agent.run("doctor", check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert done.returncode == 1 and {"camera", "spool_folder", "secrets", "store"} <= {
        line.split()[1] for line in lines
    }
    assert all("Fix:" in line for line in lines) and "Traceback" not in done.stdout + done.stderr


def test_doctor_checks_scorer_next_model_and_actions(scoring):
    ready(scoring)
    scoring.configure(act={"command": ["/nowhere/ring"]})
    checks = examine(scoring)
    assert len(checks) == 11 and checks["scorer"].startswith("ok") and "as at home" in checks["scorer"]
    assert checks["next_model"].startswith("ok") and "champion is version 1" in checks["next_model"]
    assert checks["actions"].startswith("FAIL") and "/nowhere/ring" in checks["actions"]
    for variant in ("float32", "int8"):
        path = scoring.model / "a" / f"{variant}.tflite"
        path.write_bytes(b"rot" + path.read_bytes()[3:])
    scoring.configure(model={"url": str(scoring.folder / "nowhere")}, act={"command": [], "gpio": "GPIO17"})
    checks = examine(scoring)
    assert checks["scorer"].startswith("FAIL") and "fetch the model again" in checks["scorer"]
    assert checks["next_model"].startswith("FAIL") and "gpiozero" in checks["actions"]
    scoring.configure(score={"enabled": False})
    assert "scorer" not in examine(scoring)


def test_capture_service_is_a_fault_if_score_has_the_camera(scoring, monkeypatch):
    """Both services would want the camera; without either, nobody would take photographs."""
    states = {"lakevision-capture": "active", "lakevision-upload": "active", "lakevision-score": "active"}
    monkeypatch.setattr(doctor.shutil, "which", lambda _: "/bin/systemctl")
    monkeypatch.setattr(doctor.os.path, "isdir", lambda _: True)
    monkeypatch.setattr(
        subprocess,
        "run",
        lambda command, **_: subprocess.CompletedProcess(
            command, 0, "".join(f"{states[unit]}\n" for unit in command[2:])
        ),
    )
    scoring.configure(score={"camera": True})
    settings = config.load(scoring.config)
    with pytest.raises(doctor.Bad, match="disable --now lakevision-capture"):
        doctor.services(settings)
    states["lakevision-capture"] = "inactive"
    assert doctor.services(settings) == "all 2 are active"
    settings.score.camera = False
    with pytest.raises(doctor.Bad, match="enable --now lakevision-capture;"):
        doctor.services(settings)
