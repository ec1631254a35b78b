"""Which engine connects the ranks: the setting, and what is installed."""

import os
import subprocess
import sys

import pytest

from lakevision.platform.workspace import REPOSITORY
from lakevision.training.engines import choice, collective_ranks, horovod_ranks

CHOOSE = "import sys; from lakevision.training.engines import choice; print(choice.chosen(sys.argv[1]))"


def choose(wanted, *first):
    """The output and the error of choosing in a process of its own, whose path begins with `first`."""
    path = os.pathsep.join([*map(str, first), str(REPOSITORY / "notebooks"), str(REPOSITORY)])
    command = [sys.executable, "-c", CHOOSE, wanted]
    done = subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True)
    return done.stdout.strip(), done.stderr


def fake_horovod(folder, content):
    package = folder / "horovod" / "tensorflow"
    package.mkdir(parents=True)
    (folder / "horovod" / "__init__.py").touch()
    (package / "__init__.py").write_text(content)
    return folder


def test_modules_have_the_names_of_the_setting():
    assert choice.module("horovod") is horovod_ranks and choice.module("collectives") is collective_ranks


def test_collectives_are_chosen_without_a_look_at_horovod():
    assert choice.chosen("collectives") == "collectives"


@pytest.mark.slow
def test_auto_takes_horovod_if_it_works():
    assert choose("auto")[0] == "horovod" == choose("horovod")[0]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("raise ImportError('no module for this TensorFlow')", "Horovod cannot be imported (no module for this"),
        ("raise ValueError('undefined symbol: _ZN')", "Horovod was built for another TensorFlow (undefined symbol"),
        ("def gloo_built(): return False", "Horovod was built without Gloo"),
    ],
)
def test_broken_horovod_gives_way_and_says_why(tmp_path, content, reason):
    broken = fake_horovod(tmp_path, content)
    output, _ = choose("auto", broken)
    assert output.splitlines()[-1] == "collectives" and reason in output
    _, error = choose("horovod", broken)
    assert "training.engine is horovod, but " + reason in error and "auto or collectives" in error
