"""config/setup.sh says what is missing and how to get it, and does nothing where all is there."""

import shutil
import stat
import subprocess

import pytest

from lakevision.platform.workspace import REPOSITORY

NEEDED = ["bash", "cat", "cut", "dirname", "head", "nproc", "rm", "sed", "sha256sum", "sleep", "tail", "tr", "uname"]


@pytest.fixture
def checkout(tmp_path):
    """A copy of what set-up reads, and a PATH with nothing but what a test puts there: (folder, add(name, script), run())."""
    folder, tools = tmp_path / "checkout", tmp_path / "bin"
    (folder / "config").mkdir(parents=True)
    tools.mkdir()
    for name in ("requirements.txt", "config/setup.sh"):
        shutil.copy(REPOSITORY / name, folder / name)
    for name in NEEDED:
        (tools / name).symlink_to(shutil.which(name))

    def add(name, script="exit 0"):
        path = tools / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)

    def run():
        # HOME is empty: a pyenv of whoever runs this must not be found.
        return subprocess.run(
            ["bash", "config/setup.sh"],
            cwd=folder,
            capture_output=True,
            text=True,
            env={"PATH": str(tools), "HOME": str(tmp_path)},
        )

    for name in ("g++", "make", "cmake"):
        add(name)
    add("java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2")
    add("id", "echo 1000")
    return folder, add, run


def test_no_python_3_11_says_how_to_get_one(checkout):
    folder, add, run = checkout
    add("python3", "exit 1")
    add("python3.11", "exit 1")
    script = folder / "config/setup.sh"
    script.write_text(script.read_text().replace("/usr/bin/python3.11 ", ""))
    done = run()
    assert done.returncode == 1 and "no CPython 3.11 with venv was found" in done.stderr
    assert all(
        word in done.stderr for word in ("uv python install 3.11", "deadsnakes", "pyenv install 3.11", "PYTHON=")
    )


@pytest.mark.parametrize(
    "version, expected",
    [
        pytest.param('openjdk version "21.0.2" 2024', "is version 21", id="21"),
        pytest.param('java version "1.7.0_80"', "is version 7", id="7 by its old name"),
    ],
)
def test_a_java_that_spark_can_not_use_is_named(checkout, version, expected):
    checkout[1]("java", f"echo '{version}' >&2")
    done = checkout[2]()
    assert done.returncode == 1 and expected in done.stderr and "Java 17" in done.stderr


def test_what_apt_would_supply_is_one_line_to_run_where_root_is_not_to_be_had(checkout):
    folder, add, run = checkout
    (folder.parent / "bin" / "cmake").unlink()
    (folder.parent / "bin" / "java").unlink()
    add("apt-get")
    done = run()
    assert done.returncode == 1
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends openjdk-17-jre-headless cmake"
        in done.stderr
    )


def test_a_second_call_says_and_changes_nothing():
    stamp = REPOSITORY / ".venv" / ".lakevision-ready"
    before = stamp.stat().st_mtime_ns
    done = subprocess.run(["bash", str(REPOSITORY / "config/setup.sh")], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "") and stamp.stat().st_mtime_ns == before


def test_requirements_pin_the_runtimes_versions_and_list_picamera_for_the_machines_that_can_have_it():
    text = (REPOSITORY / "requirements.txt").read_text()
    for pin in (
        "pyspark==3.5.0",
        "tensorflow-cpu==2.16.1",
        "petastorm==0.12.1",
        "hyperopt==0.2.7",
        "numpy==1.23.5",
        "horovod==0.28.1",
    ):
        assert pin in text
    from packaging.requirements import Requirement

    lines = [Requirement(line.split("#")[0].strip()) for line in text.splitlines() if line.split("#")[0].strip()]
    marker = next(line for line in lines if line.name == "picamera").marker
    assert marker.evaluate({"platform_machine": "armv7l"}) and not marker.evaluate({"platform_machine": "x86_64"})
