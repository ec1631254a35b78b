"""Locks of all runs lie in one folder, whatever their own temporary folder is."""

import tempfile
from pathlib import Path

from lakevision.platform import locks


def test_locks_are_in_the_temporary_folder_by_default(monkeypatch):
    monkeypatch.delenv(locks.LOCKS, raising=False)
    assert locks.folder() == Path(tempfile.gettempdir())


def test_run_with_its_own_temporary_folder_shares_locks(monkeypatch, tmp_path):
    monkeypatch.setenv(locks.LOCKS, str(tmp_path))
    assert locks.folder() == tmp_path
