"""Atomic file writes."""

import os
import threading

import pytest

from device import files


def test_write_replaces_content_and_leaves_no_partial(tmp_path):
    path = tmp_path / "a.json"
    files.write_atomically(path, "old")
    files.write_atomically(path, "néw", durable=True)
    assert path.read_bytes() == "néw".encode() and os.listdir(tmp_path) == ["a.json"]


def test_failed_write_keeps_old_content_and_no_partial(tmp_path, monkeypatch):
    path = tmp_path / "a.json"
    files.write_atomically(path, b"old")

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        files.write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_two_writers_never_share_a_partial_file(tmp_path):
    path, contents = tmp_path / "a.bin", {bytes([number]) * 50_000 for number in range(4)}

    def write(content):
        for _ in range(25):
            files.write_atomically(path, content)
            assert path.read_bytes() in contents

    threads = [threading.Thread(target=write, args=(content,)) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in contents and os.listdir(tmp_path) == ["a.bin"]


def test_durable_write_syncs_file_before_and_folder_after_rename(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace

    def note_fsync(target):
        steps.append("folder" if os.path.isdir(os.readlink(f"/proc/self/fd/{target}")) else "file")
        fsync(target)

    def note_replace(source, target):
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", note_fsync)
    monkeypatch.setattr(os, "replace", note_replace)
    files.write_atomically(tmp_path / "a", b"x", durable=True)
    assert steps == ["file", "rename", "folder"]
    files.write_atomically(tmp_path / "a", b"x")
    assert steps[3:] == ["rename"]


def test_remove_partials_clears_leftovers_of_one_file_only(tmp_path):
    (tmp_path / ".a.json.0123abcd.part").touch()
    (tmp_path / ".b.json.0123abcd.part").touch()
    (tmp_path / "a.json").write_text("{}")
    files.remove_partials(tmp_path / "a.json")
    assert sorted(os.listdir(tmp_path)) == [".b.json.0123abcd.part", "a.json"]


def test_long_names_still_fit(tmp_path):
    files.write_atomically(tmp_path / ("n" * 250), b"x")
    assert os.listdir(tmp_path) == ["n" * 250]
