"""The zip of the library that Spark's workers get."""

import io
import os
import subprocess
import sys
import types
import zipfile

from lakevision.platform import library_zip, workspace
from lakevision.platform.workspace import REPOSITORY

SEND = """
import sys, types
sys.path[:0] = [{notebooks!r}, {root!r}]
from lakevision.platform import library_zip
context = types.SimpleNamespace(addPyFile=lambda path: print(path, len(open(path, "rb").read())))
for _ in range(2):
    library_zip.send(types.SimpleNamespace(sparkContext=context), shared={shared})
"""


def send_in_a_process(tmp_path, shared):
    """Paths and sizes that a process of its own hands to addPyFile, with tmp_path as its temporary folder."""
    code = SEND.format(notebooks=str(REPOSITORY / "notebooks"), root=str(REPOSITORY), shared=shared)
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stderr
    return [line.split() for line in done.stdout.splitlines()]


def test_zip_is_equal_each_time_and_importable(tmp_path):
    content = library_zip.content()
    assert content == library_zip.content() == workspace.library()
    names = zipfile.ZipFile(io.BytesIO(content)).namelist()
    assert {"lakevision/__init__.py", "lakevision/platform/workspace.py", "device/model/transform.py"} <= set(names)
    (tmp_path / "library.zip").write_bytes(content)
    code = "import lakevision, device.files; print(lakevision.__file__, device.files.__file__)"
    env = {**os.environ, "PYTHONPATH": str(tmp_path / "library.zip")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=tmp_path)
    assert done.stdout.count(str(tmp_path / "library.zip")) == 2, done.stderr


def test_sent_zip_is_removed_when_the_process_exits(tmp_path):
    (first, size), second = send_in_a_process(tmp_path, shared=False)
    assert first == second[0] and int(size) == len(library_zip.content())
    assert os.path.dirname(os.path.dirname(first)) == str(tmp_path) and os.listdir(tmp_path) == []


def test_zip_of_a_shared_context_has_one_path_and_stays(tmp_path):
    paths = {path for _ in range(2) for path, _ in send_in_a_process(tmp_path, shared=True)}
    assert len(paths) == 1 and os.path.exists(*paths)
    folder = os.path.dirname(*paths)
    assert os.listdir(folder) == [os.path.basename(*paths)]


def test_zip_is_written_before_spark_gets_its_path():
    sizes = []
    context = types.SimpleNamespace(addPyFile=lambda path: sizes.append(os.path.getsize(path)))
    library_zip.send(types.SimpleNamespace(sparkContext=context), shared=False)
    assert sizes == [len(library_zip.content())]
