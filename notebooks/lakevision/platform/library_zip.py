"""lakevision and device as a zip, for Spark executors and other processes that cannot import them."""

from __future__ import annotations

import atexit
import functools
import hashlib
import io
import os
import shutil
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import lakevision
from device import files

if TYPE_CHECKING:
    from pyspark.sql import SparkSession


def content() -> bytes:
    """The zip. The same code gives the same bytes."""
    out = io.BytesIO()
    notebooks = Path(lakevision.__file__).resolve().parents[1]
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for package in (notebooks / "lakevision", notebooks.parent / "device"):
            for path in sorted(package.rglob("*.py")):
                # ZipInfo's fixed date: the bytes must not depend on the time of the checkout.
                archive.writestr(
                    zipfile.ZipInfo(str(path.relative_to(package.parent))), path.read_bytes(), zipfile.ZIP_DEFLATED
                )
    return out.getvalue()


def send(session: SparkSession, shared: bool) -> None:
    """Puts the zip on the Python path of a session's workers; open-source Spark does not ship the driver's sys.path.

    shared: other processes use the same Spark context, as the notebooks of a Databricks cluster do. The zip then has
    the same path in each of them, because Spark accepts a file name from one path only, and stays as long as the
    cluster. Otherwise the zip is removed when this process exits.
    """
    library = content()
    folder = Path(tempfile.gettempdir()) / f"lakevision-{os.getuid()}" if shared else _temporary_folder()
    folder.mkdir(exist_ok=True)
    path = folder / f"lakevision_library_{hashlib.sha256(library).hexdigest()[:16]}.zip"
    files.write_atomically(path, library)
    session.sparkContext.addPyFile(str(path))


@functools.cache
def _temporary_folder() -> Path:
    folder = tempfile.mkdtemp(prefix="lakevision-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)
