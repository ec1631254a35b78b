"""Atomic file writes: a reader sees the old content or the new content, never half of either."""

from __future__ import annotations

import os
import uuid
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], data: bytes | str, durable: bool = False) -> None:
    """Replaces a file with data (text is written as UTF-8). durable: the new content survives a later power cut.

    The partial file is in the same folder under a hidden unique name, so two writers never share one.
    Raises OSError; the partial file is removed then.
    """
    path = Path(path)
    partial = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex[:8]}.part")
    try:
        with open(partial, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def remove_partials(path: str | os.PathLike[str]) -> None:
    """Removes the partial files that killed writers of `path` left. Safe only while nobody writes `path`."""
    path = Path(path)
    for partial in path.parent.glob(f".{path.name[:200]}.*.part"):
        partial.unlink(missing_ok=True)


def sync_folder(path: str | os.PathLike[str]) -> None:
    """Makes the names in a folder survive a power cut. Raises OSError."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
