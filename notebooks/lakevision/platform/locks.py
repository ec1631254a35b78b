"""The folder for lock files: one for all processes of a machine, on its own disk."""

import os
import tempfile
from pathlib import Path

LOCKS = "LAKEVISION_LOCKS"  # environment variable: the folder for locks if a run has its own temporary folder


def folder() -> Path:
    """The folder for lock files. Not every network file system of a lakehouse supports flock, so it is a local one."""
    return Path(os.environ.get(LOCKS) or tempfile.gettempdir())
