"""Models from an MLflow server, over its REST interface and without MLflow's client."""

from __future__ import annotations

import base64
import http.client
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from device.model.source import PIECE, Pointer, Source, parsed, small, text
from device.store import credentials, types


def open_mlflow(settings: Any, secrets: dict[str, str]) -> Source:
    """The Source of an mlflow+https:// URL, without network access yet. Raises types.Denied for plain http."""
    base = settings.model.url[len("mlflow+") :].rstrip("/")
    if base.startswith("http://") and not settings.store.allow_http:
        raise types.Denied(
            "model.url is mlflow+http://: anybody on the network could send any model. Use https, or set "
            "store.allow_http = true"
        )
    model = f"name={quote(settings.model.name, safe='')}"
    alias = quote(settings.model.alias, safe="")

    def read(path: str, offset: int) -> Iterator[bytes]:
        return _chunks(settings, secrets, base, path, offset)

    def answer(path: str) -> dict[str, Any]:
        with _ask(settings, secrets, base, path) as response:
            return parsed(small(iter(lambda: response.read1(PIECE), b""), path), path)

    def look(_: str) -> Pointer:
        record = answer(f"/api/2.0/mlflow/registered-models/alias?{model}&alias={alias}")
        version = text(record.get("model_version", {}), "version", "MLflow's alias", r"\d{1,12}")
        place = answer(f"/api/2.0/mlflow/model-versions/get-download-uri?{model}&version={version}")
        address = place.get("artifact_uri", "")
        match = re.fullmatch(r"mlflow-artifacts:(?://[^/]*)?/(.+)", address)
        if not match:
            raise types.Denied(
                f"version {version} lies at {address[:80]!r}: a device can only read what MLflow serves itself "
                "(mlflow server --serve-artifacts); publish the edge bundle to a store and set model.url to that"
            )
        return Pointer(version, f"{match[1]}/edge/{version}")

    return Source(base, look, read)


def _ask(settings: Any, secrets: dict[str, str], base: str, path: str, offset: int = 0) -> Any:
    """The open response to a GET. Raises types.Unavailable, Denied, Refused."""
    headers = {"User-Agent": "lakevision-device", **({"Range": f"bytes={offset}-"} if offset else {})}
    request = urllib.request.Request(base + path, headers=headers)
    if signature := _signature(secrets):
        request.add_unredirected_header("Authorization", signature)  # a redirect must not carry the login elsewhere
    try:
        return urllib.request.urlopen(request, timeout=settings.upload.timeout_s)
    except urllib.error.HTTPError as error:
        reply = credentials.redact(error.read(2000).decode("utf-8", "replace"), secrets)
        if error.code == 416:
            raise types.Unavailable(f"{path}: nothing from byte {offset} on") from None
        if error.code in (400, 404) and "RESOURCE_DOES_NOT_EXIST" in reply or "INVALID_PARAMETER_VALUE" in reply:
            raise types.Unavailable(
                f"MLflow has no {settings.model.name}@{settings.model.alias} yet: {reply[:200]}"
            ) from None
        raise types.classify(error.code, f"MLflow answered {error.code}: {reply[:300]}") from None
    except (OSError, http.client.HTTPException) as error:
        raise types.Unavailable(f"{base}: {credentials.redact(str(error), secrets)}") from None


def _chunks(settings: Any, secrets: dict[str, str], base: str, path: str, offset: int) -> Iterator[bytes]:
    """The bytes of an artifact from offset on."""
    with _ask(settings, secrets, base, f"/api/2.0/mlflow-artifacts/artifacts/{quote(path)}", offset) as answer:
        skip = 0 if answer.status == 206 else offset  # a server without Range sends the file from its start
        try:
            while piece := answer.read1(PIECE):
                yield piece[skip:]
                skip = max(0, skip - len(piece))
        except (OSError, http.client.HTTPException) as error:
            raise types.Unavailable(f"{base}: {error}") from None


def _signature(secrets: dict[str, str]) -> str:
    """The Authorization header, "" without a login."""
    if secrets.get("MLFLOW_TRACKING_TOKEN"):
        return f"Bearer {secrets['MLFLOW_TRACKING_TOKEN']}"
    if secrets.get("MLFLOW_TRACKING_USERNAME"):
        pair = f"{secrets['MLFLOW_TRACKING_USERNAME']}:{secrets.get('MLFLOW_TRACKING_PASSWORD', '')}"
        return "Basic " + base64.b64encode(pair.encode()).decode()
    return ""
