"""Sources of models, by alias: a folder in any store, an MLflow server, or Unity Catalog.

    /a/folder, s3://, abfss://, gs://, volume://     <alias>.json points at versions/<version>/, as 04_deploy publishes
    mlflow+https://host[:port]                       the alias of model.name by REST; files are artifacts below
                                                     edge/<version>/
    databricks://host/catalog/schema/volume/folder   the alias of model.name by Unity Catalog's REST; files from the
    volume

No client library is needed. A source is two functions. Errors are those of store/types.py: Unavailable (try again),
Denied (a person must help), Refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Optional
from urllib.parse import quote

from device.store import credentials, stores, types

PIECE = 1 << 18  # bytes of one request or read; received pieces survive a broken line
SMALL = 1 << 20  # largest pointer or manifest, bytes


@dataclass(frozen=True)
class Pointer:
    """The target of an alias.

    folder: of its files, for read(). digest: SHA-256 of manifest.json, "" if unknown.
    """

    version: str
    folder: str
    digest: str = ""
    etag: str = ""


@dataclass(frozen=True)
class Source:
    """A place with models.

    look(etag): the Pointer, or None if nothing has changed since that ETag. read(path, offset): the bytes of a file
    from offset on.
    """

    name: str
    look: Callable[[str], Optional[Pointer]]
    read: Callable[[str, int], Iterator[bytes]]


def open_source(settings: Any) -> Source:
    """The Source of model.url, without network access yet. Raises types.Denied if the settings allow none."""
    url = settings.model.url
    if url.startswith("mlflow+"):
        from device.model import mlflow_source

        return mlflow_source.open_mlflow(settings, credentials.load("mlflow"))
    if url.startswith("databricks://"):
        return _unity_catalog(settings, credentials.load("volume"))
    kind = stores.provider(url)
    if kind == "file":
        root = Path(url[len("file://") :] if url.startswith("file://") else url)
        return _published(settings, str(root), lambda key, offset, etag: _of_file(root / key, offset))
    if kind == "volume":
        return _published(settings, url, _volume_reader(settings, url, credentials.load(kind)))
    return _published(settings, url, _cloud_reader(settings, kind, credentials.load(kind)))


def small(chunks: Iterator[bytes], what: str) -> bytes:
    """All bytes of a file that must be small. what: its name for messages. Raises types.Refused."""
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > SMALL:
            raise types.Refused(f"{what} is larger than {SMALL} bytes: not the expected file")
    return data


def parsed(data: bytes, what: str) -> dict[str, Any]:
    """The JSON object in data. Raises types.Unavailable."""
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise types.Unavailable(
            f"{what} is not JSON but begins with {data[:40]!r}: a captive portal, or half a file? ({error})"
        ) from None
    return value


def text(record: dict[str, Any], key: str, what: str, pattern: str) -> str:
    """The text record[key] if it matches the pattern whole. Raises types.Unavailable."""
    value = record.get(key)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise types.Unavailable(f"{what}: {key} = {str(value)[:60]!r} cannot be right")
    return value


# ---- a published folder


def _published(settings: Any, name: str, reader: Callable) -> Source:
    """A published folder. reader(key, offset, etag) -> (etag, iterator of bytes), or None if the ETag still holds."""
    pointer_file = f"{settings.model.alias}.json"

    def look(etag: str) -> Optional[Pointer]:
        answer = reader(pointer_file, 0, etag)
        if answer is None:
            return None
        found, chunks = answer
        what = f"{name}/{pointer_file}"
        record = parsed(small(chunks, what), what)
        return Pointer(
            text(record, "version", what, r"[\w.-]{1,80}"),
            text(record, "folder", what, r"versions/[\w.-]{1,80}"),
            text(record, "manifest_sha256", what, r"[0-9a-f]{64}"),
            found,
        )

    return Source(name, look, lambda path, offset: reader(path, offset, "")[1])


def _of_file(path: Path, offset: int) -> tuple[str, Iterator[bytes]]:
    def chunks(file: Any) -> Iterator[bytes]:
        with file:
            while piece := file.read(PIECE):
                yield piece

    try:
        file = open(path, "rb")  # noqa: SIM115  chunks() closes the file
        file.seek(offset)
        return "", chunks(file)
    except PermissionError as error:
        raise types.Denied(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise types.Unavailable(f"{path}: {error.strerror}") from error


def _cloud_reader(settings: Any, kind: str, secrets: dict[str, str]) -> Callable:
    client, call = stores.cloud(_at(settings, settings.model.url), kind, secrets)
    import obstore
    from obstore.exceptions import NotModifiedError

    def reader(key, offset, etag):
        options = {**({"if_none_match": etag} if etag else {}), **({"range": {"offset": offset}} if offset else {})}
        try:
            answer = call(obstore.get, key, options=options, passing=NotModifiedError)
        except NotModifiedError:
            return None
        return answer.meta.get("e_tag") or "", _drained(call, answer.stream(min_chunk_size=PIECE >> 5))

    return reader


def _drained(call: Callable, stream: Any) -> Iterator[bytes]:
    pieces = iter(stream)
    while (piece := call(lambda _: next(pieces, None))) is not None:
        yield bytes(piece)


def _at(settings: Any, url: str) -> SimpleNamespace:
    """The settings with another store.url: the model's store shares region, endpoint and allow_http of [store]."""
    return SimpleNamespace(**{**vars(settings), "store": SimpleNamespace(**{**vars(settings.store), "url": url})})


def _volume_reader(settings: Any, url: str, secrets: dict[str, str]) -> Callable:
    from device.store import volume

    session, root = volume.open_session(_at(settings, url), secrets)

    def reader(key, offset, etag):
        place = f"/api/2.0/fs/files{quote(f'{root}/{key}')}"
        first = _piece(session, place, offset, secrets)

        def chunks():
            at, piece = offset, first
            while piece:
                yield piece
                at += len(piece)
                piece = _piece(session, place, at, secrets) if len(piece) == PIECE else b""

        return "", chunks()

    return reader


def _piece(session: Any, place: str, offset: int, secrets: dict[str, str]) -> bytes:
    """Bytes of a volume's file from offset on: PIECE at most, or all if the server ignores Range. b"" at the end."""
    from device.store import volume

    status, body = session.request("GET", place, headers={"Range": f"bytes={offset}-{offset + PIECE - 1}"})
    if status == 416:
        return b""
    body = volume.check(status, body, secrets)
    return body if status == 206 else body[offset:]


# ---- Databricks: the alias from Unity Catalog, the files from the volume


def _unity_catalog(settings: Any, secrets: dict[str, str]) -> Source:
    from device.store import volume

    url = "volume://" + settings.model.url[len("databricks://") :]
    session, _ = volume.open_session(_at(settings, url), secrets)
    files = _volume_reader(settings, url, secrets)
    name, alias = quote(settings.model.name, safe=""), quote(settings.model.alias, safe="")
    place = f"/api/2.1/unity-catalog/models/{name}/aliases/{alias}"

    def look(_: str) -> Pointer:
        body = volume.check(*session.request("GET", place), secrets)
        record = parsed(body, place)
        record = record.get("model_version", record)
        version = record.get("version") or record.get("version_num")
        if not re.fullmatch(r"\d{1,12}", str(version)):
            raise types.Unavailable(f"{place} names no version")
        return Pointer(str(version), f"versions/{version}")

    return Source(settings.model.url, look, lambda path, offset: files(path, offset, "")[1])
