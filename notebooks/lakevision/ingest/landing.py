"""The landing zone: the folder of new files, including files that Spark's listing skips.

A name that begins with a dot is a file that is still being written. Spark hides photographs whose name begins with _
(_DSC0001.JPG) and empty files. walk() lists them, so that each of these files gets a row, too.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm"}
ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")


class File(NamedTuple):
    """A landed file. path: relative to the landing zone; modified_at: aware datetime; length: bytes."""

    path: str
    modified_at: datetime
    length: int


def walk(root: str) -> Iterator[File]:
    """Yields a File for each file that has landed, in no particular order."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        for name in names:
            path = os.path.join(folder, name)
            relative = _text(os.path.relpath(path, root))
            partial = name[0] == "." or name.endswith("._COPYING_")  # the latter by `hadoop fs -put`
            if partial or _hidden(relative) and Path(name).suffix.lower() not in SUFFIXES:  # such as _SUCCESS
                continue
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # replaced or removed since the folder was listed
            milliseconds = status.st_mtime_ns // 10**6  # the precision of Spark's listing
            yield File(relative, datetime.fromtimestamp(milliseconds / 1000, UTC), status.st_size)


def passed_over(file: File) -> bool:
    """True if Spark's file listing skips the file.

    Spark skips empty files, names that are not UTF-8 (the JVM cannot open them), and paths with a part that begins
    with _. A part with = is an exception: Spark takes it for a partition and reads it.
    """
    return file.length == 0 or _hidden(file.path) or bool(ESCAPED.search(file.path))


def _hidden(relative: str) -> bool:
    return any(part[0] == "_" and "=" not in part for part in relative.split(os.sep))


def _text(path: str) -> str:
    r"""The path with bytes that are not UTF-8 written as \xf6, because a table holds only valid text."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def address(root: str, path: str) -> str:
    """The full path, for open(), of a file that walk() listed. root: the landing zone."""
    plain = os.path.join(root, path)
    if not ESCAPED.search(path) or os.path.exists(plain):
        return plain
    return os.fsdecode(ESCAPED.sub(lambda match: bytes([int(match[1], 16)]).decode("utf-8", "surrogateescape"), plain))


def relative(root: str, address: str) -> str:
    """A path relative to the landing zone from Spark's address: file:/..., file:///..., dbfs:/Volumes/..."""
    bare = address.partition(":")[2] if address.startswith(("file:", "dbfs:")) else address
    return os.path.relpath("/" + bare.lstrip("/"), root)


class Changed(RuntimeError):
    """A photograph that is stored in the landing zone only has been removed or changed; the message gives its path.

    This is possible only with ingest.keep_content: false.
    """


def content(root: str, path: str, sha256: str, stored: bytes | None) -> bytes:
    """The bytes of a row of images: the stored bytes or, if there are none, those of the file. Raises Changed."""
    if stored is not None:
        return bytes(stored)
    try:
        with open(address(root, path), "rb") as file:
            data = file.read()
    except OSError as error:
        raise Changed(
            f"{path}: {error.strerror}. images keeps no bytes (ingest.keep_content: false), "
            "so files in the landing zone must stay unchanged"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed(
            f"{path}: the bytes have changed since the ingest. images keeps no bytes (ingest.keep_content: false), "
            "so files in the landing zone must stay unchanged"
        )
    return data
