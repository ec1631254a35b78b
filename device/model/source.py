"""Where models come from: a published folder in any store, an MLflow server, or Databricks' Unity Catalog; by alias,
with no client of theirs.

    /a/folder, s3://, abfss://, gs://, volume://     <alias>.json points at versions/<version>/ (what 04_deploy
    publishes) mlflow+https://host[:port]                       model.name's alias by REST; files are the version's
    artifacts below edge/<version>/ databricks://workspace-host/catalog/schema/volume/folder     model.name's alias by
    Unity Catalog's REST; files from the volume

A source is two functions. Errors have stores.py's names: Unavailable (try again), Denied (a person must help), Refused.
"""

import base64
import http.client
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, Optional
from urllib.parse import quote

from device.store import credentials, stores, types

PIECE = 1 << 18  # bytes asked for or read at a time; what has come is kept when the line breaks
SMALL = 1 << 20  # no pointer and no manifest is larger


@dataclass(frozen=True)
class Pointer:
    """What an alias points at.

    folder: where its files lie, for read(); digest: SHA-256 of manifest.json, "" where the source can't say.
    """

    version: str
    folder: str
    digest: str = ""
    etag: str = ""


@dataclass(frozen=True)
class Source:
    """look(etag): the Pointer, or None where the server says that nothing changed since that ETag.

    read(path, offset): the file's bytes from there on.
    """

    name: str
    look: Callable[[str], Optional[Pointer]]
    read: Callable[[str, int], Iterator[bytes]]


def open_source(settings):
    """The Source of model.url; no network yet. Raises types.Denied where the settings can't make one."""
    url = settings.model.url
    if url.startswith("mlflow+"):
        return _mlflow(settings, credentials.load("mlflow"))
    if url.startswith("databricks://"):
        return _unity_catalog(settings, credentials.load("volume"))
    kind = stores.provider(url)
    if kind == "file":
        root = Path(url[len("file://") :] if url.startswith("file://") else url)
        return _published(settings, str(root), lambda key, offset, etag: _of_file(root / key, offset))
    if kind == "volume":
        return _published(settings, url, _volume_reader(settings, url, credentials.load(kind)))
    return _published(settings, url, _cloud_reader(settings, kind, credentials.load(kind)))


def small(chunks, what):
    """All bytes of a file that must be small. Raises types.Refused."""
    data = b""
    for chunk in chunks:
        data += chunk
        if len(data) > SMALL:
            raise types.Refused(f"{what} is larger than {SMALL} bytes: not what it should be")
    return data


def _parsed(data, what):
    try:
        value = json.loads(data)
        if not isinstance(value, dict):
            raise ValueError("not an object")
    except ValueError as error:
        raise types.Unavailable(
            f"{what} is no JSON but begins with {data[:40]!r}: a captive portal, or half a file? ({error})"
        ) from None
    return value


def _text(record, key, what, pattern):
    value = record.get(key)
    if not isinstance(value, str) or not re.fullmatch(pattern, value):
        raise types.Unavailable(f"{what}: {key} = {str(value)[:60]!r} can't be right")
    return value


# ---- a published folder


def _published(settings, name, reader):
    """reader(key, offset, etag) -> ([etag], iterator of bytes), or None where the ETag still holds."""
    pointer_file = f"{settings.model.alias}.json"

    def look(etag):
        answer = reader(pointer_file, 0, etag)
        if answer is None:
            return None
        found, chunks = answer
        what = f"{name}/{pointer_file}"
        record = _parsed(small(chunks, what), what)
        return Pointer(
            _text(record, "version", what, r"[\w.-]{1,80}"),
            _text(record, "folder", what, r"versions/[\w.-]{1,80}"),
            _text(record, "manifest_sha256", what, r"[0-9a-f]{64}"),
            found,
        )

    return Source(name, look, lambda path, offset: reader(path, offset, "")[1])


def _of_file(path, offset):
    def chunks(file):
        with file:
            while piece := file.read(PIECE):
                yield piece

    try:
        file = open(path, "rb")
        file.seek(offset)
        return "", chunks(file)
    except PermissionError as error:
        raise types.Denied(f"{path}: {error.strerror}") from error
    except OSError as error:
        raise types.Unavailable(f"{path}: {error.strerror}") from error


def _cloud_reader(settings, kind, secrets):
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


def _drained(call, stream):
    pieces = iter(stream)
    while (piece := call(lambda _: next(pieces, None))) is not None:
        yield bytes(piece)


def _at(settings, url):
    """The settings with another store.url: region, endpoint and allow_http of [store] hold for the model's store,
    too.
    """
    return SimpleNamespace(**{**vars(settings), "store": SimpleNamespace(**{**vars(settings.store), "url": url})})


def _volume_reader(settings, url, secrets):
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


def _piece(session, place, offset, secrets):
    """Bytes of a volume's file from offset on, PIECE at most where the workspace heeds Range, else all of them.

    b"" at the end.
    """
    from device.store import volume

    status, body = session.request("GET", place, headers={"Range": f"bytes={offset}-{offset + PIECE - 1}"})
    if status == 416:
        return b""
    body = volume.check(status, body, secrets)
    return body if status == 206 else body[offset:]


# ---- Databricks: the alias from Unity Catalog, the files from the volume


def _unity_catalog(settings, secrets):
    from device.store import volume

    url = "volume://" + settings.model.url[len("databricks://") :]
    session, _ = volume.open_session(_at(settings, url), secrets)
    files = _volume_reader(settings, url, secrets)
    place = f"/api/2.1/unity-catalog/models/{quote(settings.model.name, safe='')}/aliases/{quote(settings.model.alias, safe='')}"

    def look(_):
        body = volume.check(*session.request("GET", place), secrets)
        record = _parsed(body, place)
        record = record.get("model_version", record)
        version = record.get("version") or record.get("version_num")
        if not re.fullmatch(r"\d{1,12}", str(version)):
            raise types.Unavailable(f"{place} names no version")
        return Pointer(str(version), f"versions/{version}")

    return Source(settings.model.url, look, lambda path, offset: files(path, offset, "")[1])


# ---- MLflow's REST


def _mlflow(settings, secrets):
    base = settings.model.url[len("mlflow+") :].rstrip("/")
    if base.startswith("http://") and not settings.store.allow_http:
        raise types.Denied(
            "model.url is mlflow+http://: whoever sits on the line could send any model. Use https, or set store.allow_http = true"
        )
    model = f"name={quote(settings.model.name, safe='')}"

    def ask(path, offset=0):
        headers = {"User-Agent": "lakevision-device", **({"Range": f"bytes={offset}-"} if offset else {})}
        request = urllib.request.Request(base + path, headers=headers)
        signed = _signature(secrets)
        if signed:
            request.add_unredirected_header("Authorization", signed)  # never to where a redirect leads
        try:
            return urllib.request.urlopen(request, timeout=settings.upload.timeout_s)
        except urllib.error.HTTPError as error:
            said = credentials.redact(error.read(2000).decode("utf-8", "replace"), secrets)
            if error.code == 416:
                raise types.Unavailable(f"{path}: nothing from byte {offset} on") from None
            if error.code in (400, 404) and "RESOURCE_DOES_NOT_EXIST" in said or "INVALID_PARAMETER_VALUE" in said:
                raise types.Unavailable(
                    f"MLflow has no {settings.model.name}@{settings.model.alias} yet: {said[:200]}"
                ) from None
            raise types.classify(error.code, f"MLflow answered {error.code}: {said[:300]}") from None
        except (OSError, http.client.HTTPException) as error:
            raise types.Unavailable(f"{base}: {credentials.redact(str(error), secrets)}") from None

    def read(path, offset):
        with ask(f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}", offset) as answer:
            skip = 0 if answer.status == 206 else offset  # a server that does not know Range sends it from the start
            try:
                while piece := answer.read1(PIECE):
                    yield piece[skip:]
                    skip = max(0, skip - len(piece))
            except (OSError, http.client.HTTPException) as error:
                raise types.Unavailable(f"{base}: {error}") from None

    def answer(path):
        with ask(path) as response:
            return _parsed(small(iter(lambda: response.read1(PIECE), b""), path), path)

    def look(_):
        found = answer(f"/api/2.0/mlflow/registered-models/alias?{model}&alias={quote(settings.model.alias, safe='')}")
        version = _text(found.get("model_version", {}), "version", "MLflow's alias", r"\d{1,12}")
        address = answer(f"/api/2.0/mlflow/model-versions/get-download-uri?{model}&version={version}").get(
            "artifact_uri", ""
        )
        match = re.fullmatch(r"mlflow-artifacts:(?://[^/]*)?/(.+)", address)
        if not match:
            raise types.Denied(
                f"version {version} lies at {address[:80]!r}: a device can only read what MLflow serves itself "
                "(mlflow server --serve-artifacts); publish the edge bundle to a store and set model.url to that"
            )
        return Pointer(version, f"{match[1]}/edge/{version}")

    return Source(base, look, read)


def _signature(secrets):
    if secrets.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {secrets['MLFLOW_TRACKING_TOKEN']}"
    if secrets.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{secrets['MLFLOW_TRACKING_USERNAME']}:{secrets.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return ""
