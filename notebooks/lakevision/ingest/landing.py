"""The landing zone: a folder that devices and replays fill. What lies there, and what Spark's listing passes over without a word.

Names that begin with a dot are files still being written. Photographs whose name begins with _ (_DSC0001.JPG), and files of no bytes, are
real to a person and hidden to Spark: they are listed here, so that each of them becomes a row, too.
"""

import hashlib
import os
import re
from collections import namedtuple
from datetime import UTC, datetime
from pathlib import Path

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".ppm"}
ESCAPED = re.compile(r"\\x([89a-f][0-9a-f])")
File = namedtuple(
    "File", "path modified_at length"
)  # path: relative to the landing zone; modified_at: aware datetime; length: bytes


def walk(root):
    """Yields a File for each file that has landed, in no particular order."""
    for folder, subfolders, names in os.walk(root):
        subfolders[:] = [name for name in subfolders if name[0] != "."]
        for name in names:
            path = os.path.join(folder, name)
            relative = _text(os.path.relpath(path, root))
            if (
                name[0] == "."
                or name.endswith("._COPYING_")
                or _hidden(relative)
                and Path(name).suffix.lower() not in SUFFIXES
            ):
                continue  # _SUCCESS, half a copy of `hadoop fs -put`, and the like
            try:
                status = os.stat(path)
            except FileNotFoundError:
                continue  # replaced or removed meanwhile
            yield File(
                relative, datetime.fromtimestamp(status.st_mtime_ns // 10**6 / 1000, UTC), status.st_size
            )  # Spark knows milliseconds


def passed_over(file):
    """Whether Spark's file listing leaves a File out: no bytes, or a part of its path begins with _ (one with = is a partition to Spark, and is read),
    or its name is no UTF-8 (the JVM can't open it)."""
    return file.length == 0 or _hidden(file.path) or bool(ESCAPED.search(file.path))


def _hidden(relative):
    return any(part[0] == "_" and "=" not in part for part in relative.split(os.sep))


def _text(path):
    """A path whose bytes are no UTF-8 with those written as \\xf6: no table holds it otherwise."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def address(root, path):
    """Where open() finds a file that walk() named."""
    plain = os.path.join(root, path)
    if not ESCAPED.search(path) or os.path.exists(plain):
        return plain
    return os.fsdecode(ESCAPED.sub(lambda match: bytes([int(match[1], 16)]).decode("utf-8", "surrogateescape"), plain))


def relative(root, address):
    """A path relative to the landing zone from the address that Spark gives: file:/..., file:///..., dbfs:/Volumes/..."""
    bare = address.partition(":")[2] if address.startswith(("file:", "dbfs:")) else address
    return os.path.relpath("/" + bare.lstrip("/"), root)


class Changed(RuntimeError):
    """A photograph whose bytes are in the landing zone only (ingest.keep_content: false) is gone or another one now; the message names it."""


def content(root, path, sha256, stored):
    """The bytes of a row of images: those stored in it, or where there are none, the file's. Raises Changed."""
    if stored is not None:
        return bytes(stored)
    try:
        with open(address(root, path), "rb") as file:
            data = file.read()
    except OSError as error:
        raise Changed(
            f"{path}: {error.strerror}. images keeps no bytes (ingest.keep_content: false), so the landing zone must stay as it was"
        ) from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise Changed(
            f"{path}: other bytes than those that were ingested. images keeps none (ingest.keep_content: false), so the landing zone "
            "must stay as it was"
        )
    return data
