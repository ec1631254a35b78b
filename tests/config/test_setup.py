"""config/setup.sh names what is missing and its remedy, and does nothing if all is installed. Each test runs a copy."""

import hashlib
import shutil
import stat
import subprocess
import sysconfig
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lakevision.platform.workspace import REPOSITORY

NEEDED = ["bash", "cat", "cut", "dirname", "head", "nproc", "rm", "sed", "sha256sum", "sleep", "tail", "tr", "uname"]
STARTED = "no CPython 3.11 with venv was found"  # a set-up that is not ready gets as far as this error
INSTALLED = (
    "tensorflow/__init__.py",
    "petastorm/__init__.py",
    "mlflow/__init__.py",
    "horovod/tensorflow/mpi_lib.cpython-311-x86_64-linux-gnu.so",
    "pyspark/jars/delta-spark_2.12-3.2.0.jar",
)


class Checkout:
    """A copy of the set-up's files, and a PATH with only a test's own commands. No Python 3.11 is on it."""

    def __init__(self, tmp_path: Path):
        self.home, self.folder, self.tools = tmp_path, tmp_path / "checkout", tmp_path / "bin"
        self.venv = self.folder / ".venv"
        self.stamp = self.venv / ".lakevision-ready"
        self.site = self.venv / "lib/python3.11/site-packages"
        (self.folder / "config").mkdir(parents=True)
        self.tools.mkdir()
        for name in ("requirements.txt", "config/setup.sh"):
            shutil.copy(REPOSITORY / name, self.folder / name)
        script = self.folder / "config/setup.sh"
        script.write_text(script.read_text().replace(" /usr/bin/python3.11 ", " "))
        for name in NEEDED:
            (self.tools / name).symlink_to(shutil.which(name) or f"/bin/{name}")
        for name in ("g++", "make", "cmake"):
            self.add(name)
        self.add("java", "echo 'openjdk version \"17.0.15\" 2025-04-15' >&2")
        self.add("id", "echo 1000")

    def add(self, name: str, script: str = "exit 0"):
        """A command on the PATH."""
        executable(self.tools / name, script)

    def run(self) -> subprocess.CompletedProcess:
        # HOME is an empty folder: the developer's own pyenv must not be found.
        return subprocess.run(
            ["bash", "config/setup.sh"],
            cwd=self.folder,
            capture_output=True,
            text=True,
            env={"PATH": str(self.tools), "HOME": str(self.home)},
        )

    def sign(self):
        """Writes the stamp of a finished set-up."""
        content = [(self.folder / name).read_text() for name in ("requirements.txt", "config/setup.sh")]
        digest = hashlib.sha256("".join([*content, f"{self.venv}\n"]).encode()).hexdigest()
        self.stamp.write_text(f"{digest}\n")

    def install(self, site: Path | None = None):
        """A finished .venv. site: a real site-packages to link to; without it, the few files that set-up tests for."""
        executable(self.venv / "bin/python")
        self.site.parent.mkdir(parents=True)
        if site:
            self.site.symlink_to(site)
        for name in () if site else INSTALLED:
            (self.site / name).parent.mkdir(parents=True)
            (self.site / name).touch()
        self.sign()


def executable(path: Path, script: str = "exit 0"):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


@pytest.fixture
def checkout(tmp_path):
    return Checkout(tmp_path)


def test_missing_python_error_lists_ways_to_install_it(checkout):
    checkout.add("python3", "exit 1")
    checkout.add("python3.11", "exit 1")
    done = checkout.run()
    assert done.returncode == 1 and STARTED in done.stderr
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
def test_unsupported_java_is_named(checkout, version, expected):
    checkout.add("java", f"echo '{version}' >&2")
    done = checkout.run()
    assert done.returncode == 1 and expected in done.stderr and "Java 17" in done.stderr


def test_missing_packages_without_root_give_one_command(checkout):
    (checkout.tools / "cmake").unlink()
    (checkout.tools / "java").unlink()
    checkout.add("apt-get")
    done = checkout.run()
    assert done.returncode == 1
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends openjdk-17-jre-headless cmake"
        in done.stderr
    )


@pytest.mark.parametrize("real", [pytest.param(True, id="this environment"), pytest.param(False, id="fewest files")])
def test_finished_setup_prints_and_changes_nothing(checkout, real):
    """The real case links to the running interpreter's packages: the files that set-up tests for must exist in them."""
    checkout.install(Path(sysconfig.get_paths()["purelib"]) if real else None)
    before = checkout.stamp.stat().st_mtime_ns
    done = checkout.run()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert checkout.stamp.stat().st_mtime_ns == before


def edit_requirements(checkout):
    with open(checkout.folder / "requirements.txt", "a") as file:
        file.write("# edited\n")


def edit_script(checkout):
    with open(checkout.folder / "config/setup.sh", "a") as file:
        file.write("# edited\n")


def move_checkout(checkout):
    checkout.folder = checkout.folder.rename(checkout.home / "moved")


def break_interpreter(checkout):
    executable(checkout.venv / "bin/python", "exit 1")


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(edit_requirements, id="requirements edited"),
        pytest.param(edit_script, id="script edited"),
        pytest.param(move_checkout, id="folder moved"),
        pytest.param(break_interpreter, id="interpreter broken"),
        pytest.param(lambda checkout: checkout.stamp.unlink(), id="no stamp"),
        *(
            pytest.param(lambda checkout, name=name: (checkout.site / name).unlink(), id=f"no {name.partition('/')[0]}")
            for name in INSTALLED
        ),
    ],
)
def test_unfinished_setup_starts_despite_an_old_stamp(checkout, change):
    checkout.install()
    change(checkout)
    done = checkout.run()
    assert done.returncode == 1 and STARTED in done.stderr


def test_finished_setup_without_java_names_java(checkout):
    checkout.install()
    (checkout.tools / "java").unlink()
    done = checkout.run()
    assert done.returncode == 1 and "openjdk-17-jre-headless" in done.stderr


def test_requirements_pin_the_runtime_and_picamera_on_arm():
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
    lines = [Requirement(line.split("#")[0].strip()) for line in text.splitlines() if line.split("#")[0].strip()]
    marker = next(line for line in lines if line.name == "picamera").marker
    assert marker.evaluate({"platform_machine": "armv7l"}) and not marker.evaluate({"platform_machine": "x86_64"})
