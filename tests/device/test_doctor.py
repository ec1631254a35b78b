"""Doctor's checks."""


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
