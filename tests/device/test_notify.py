"""Messages to systemd: readiness and the watchdog."""

import harness
from harness import until


def test_only_frames_feed_watchdog_of_capture(agent):
    agent.configure(capture={"interval_s": 3600.0})
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("capture", env=systemd.env(watchdog_s=0.6))
        until(
            lambda: systemd.heard().count("WATCHDOG=1") >= 4,
            "frames feed the watchdog though the next one is due in an hour",
        )
        assert agent.stop(process) == 0
        assert systemd.heard()[0] == "READY=1" and systemd.heard()[-1] == "STOPPING=1"
    assert len(agent.acks()) == 1, "a frame for the watchdog alone is not kept"


def test_hung_camera_starves_watchdog(agent):
    """Even before the agent's own time-out, only a frame feeds the watchdog."""
    hang = (
        "import time, device.camera.folder as f; real = f.Camera.capture; "
        "f.Camera.capture = lambda self: real(self) if self.frames < 1 else time.sleep(9)"
    )
    agent.configure(camera={"timeout_s": 3.0}, capture={"interval_s": 0.1})
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("capture", driver=hang, env=systemd.env(watchdog_s=0.3))
        assert process.wait(20) != 0
        assert systemd.heard().count("WATCHDOG=1") == 1


def test_upload_reports_ready_and_reason_of_waiting(agent):
    agent.configure(store={"url": str(agent.folder / "not mounted")})
    agent.run("capture", "--once")
    with harness.NotifySocket(agent.folder) as systemd:
        process = agent.start("upload", env=systemd.env(watchdog_s=60))
        until(
            lambda: any("not mounted is not there" in line for line in systemd.heard()), "the status names the reason"
        )
        assert "READY=1" in systemd.heard() and "WATCHDOG=1" in systemd.heard()
        agent.stop(process)
