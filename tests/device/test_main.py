"""The command line: exit statuses, and the packages that each command imports."""

import os
import re
import sys

import pytest
from harness import ROOT, until


def test_missing_or_wrong_config_exits_with_78(agent):
    agent.configure(camera={"quality": 1000})
    done = agent.run("capture", check=False)
    assert done.returncode == 78 and "camera.quality" in done.stderr and "Traceback" not in done.stderr
    agent.config.unlink()
    assert agent.run("status", check=False).returncode == 78


def test_unknown_flag_exits_with_2(agent):
    done = agent.run("capture", "--onse", check=False)
    assert done.returncode == 2 and "--onse" in done.stderr


def test_second_process_on_spool_exits_with_75(agent):
    agent.configure(capture={"interval_s": 0.2})
    process = agent.start("capture")
    until(lambda: agent.acks(), "the first process runs")
    done = agent.run("capture", "--once", check=False)
    assert done.returncode == 75 and "another capture is running" in done.stderr and "Traceback" not in done.stderr
    agent.stop(process)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("command", ["capture", "upload"])
def test_root_on_services_spool_exits_with_77(agent, command):
    """`sudo python -m device capture --once` would leave a frame that upload cannot read, and fail on for ever."""
    agent.spool.mkdir()
    os.chown(agent.spool, 65534, 65534)
    done = agent.run(command, "--once", check=False)
    assert done.returncode == 77 and "sudo -u lakevision" in done.stderr and "Traceback" not in done.stderr
    assert not list(agent.spool.iterdir())


FORBIDDEN = ("tensorflow", "pandas", "mlflow", "boto3", "numpy", "yaml", "keras", "pyarrow", "pyspark")


@pytest.mark.parametrize(
    "command, also",
    [
        pytest.param("capture", ("obstore",), id="capture"),
        pytest.param("upload", ("PIL",), id="upload"),
        pytest.param("status", ("PIL", "obstore"), id="status"),
    ],
)
def test_command_imports_only_needed_packages(agent, tmp_path, command, also):
    """Each process imports only its own packages: no obstore in capture, no Pillow in upload."""
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


def test_source_imports_only_known_packages():
    """Only the standard library, Pillow and obstore; the Pi's own packages only inside functions."""
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
