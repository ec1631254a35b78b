"""python -m device sync: fetches and checks the model of the alias, into the unused slot.

A look is one small request. Files come in pieces that stay on the disk: a broken line, a restart or a power cut costs
only the current piece. The model in use is never touched; the scorer switches when the new one is complete and checked
(slots.py). The scorer starts this module as a process of its own, so network and downloads cannot affect the scoring.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from pathlib import Path
from typing import Any

from device import clock
from device.files import sync_folder
from device.model import edge_model, golden, slots, source, transform
from device.spool import records
from device.spool.spool import FULL, MEGABYTE
from device.store import types

EXIT_LATER = 75  # EX_TEMPFAIL: try again
EXIT_DENIED = 77  # EX_NOPERM: a person must help, or this model will never be used here
PATH = re.compile(r"[A-Za-z0-9_-]{1,80}\.tflite|golden/[A-Za-z0-9_-]{1,80}\.[a-z]{1,5}")


class Damaged(Exception):
    """A download differs from its manifest. Once is an accident; after model.attempts times the model is denied."""


def run(settings: Any) -> int:
    """Looks for a new model and fetches it.

    Returns 0 (look again after model.interval_s), EXIT_LATER or EXIT_DENIED.
    """
    if not settings.model.url:
        print("model.url is empty: set it in /etc/lakevision/device.toml to fetch models", flush=True)
        return 0
    root = Path(settings.model.folder)
    try:
        with slots.filling(root):
            return _look(settings, root)
    except slots.Busy as busy:
        print(busy, flush=True)
        return EXIT_LATER


def _look(settings: Any, root: Path) -> int:
    state = records.read(root / "sync.json")
    state = state if state.get("from") == _origin(settings) else {"from": _origin(settings)}
    status = EXIT_LATER
    try:
        status = _follow(settings, root, state)
        state.update(error="", failures=0)
    except types.Unavailable as error:
        state.update(error=str(error), failures=state.get("failures", 0) + 1)
    except Damaged as error:
        state.update(error=str(error), failures=state.get("failures", 0) + 1)
        digest = state.get("coming", "")
        state["attempts"] = state.get("attempts", 0) + 1 if digest == state.get("attempted") else 1
        state["attempted"] = digest
        if digest and state["attempts"] >= settings.model.attempts:
            status = _deny(root, state, f"{state['attempts']} times in a row: {error}")
    except golden.Slow as slow:
        card = {"digest": state["coming"], "version": state["coming_version"]}
        over, words = slots.too_slow(root, settings.model, card, slow.milliseconds, golden.hindered(slow.board))
        print(f"version {card['version']}: {words}", flush=True)
        status = _deny(root, state, f"{slow}; {words}") if over else 0  # 0: no sooner than after model.interval_s
        if not over:
            state.update(error="", failures=0)
    except (edge_model.BadModel, transform.BadTransform, golden.Failed) as error:
        status = _deny(root, state, str(error))
    except (types.Denied, types.Refused, ValueError) as error:
        state.update(error=str(error), failures=state.get("failures", 0) + 1)
        status = EXIT_DENIED
    except OSError as error:
        if error.errno not in FULL:
            raise
        slots.clear(root / slots.spare(slots.active(root)))  # an incomplete model must not keep the disk full
        state.update(error=f"the disk: {error.strerror}", failures=state.get("failures", 0) + 1)
    if state["error"]:
        print(f"{state['error']}", file=sys.stderr, flush=True)
    state["at"] = clock.now().isoformat()
    try:
        records.write(root / "sync.json", state)
    except OSError as error:
        if error.errno not in FULL:
            raise
        print(f"{root / 'sync.json'}: {error.strerror}", file=sys.stderr, flush=True)
    return status


def _origin(settings: Any) -> str:
    return f"{settings.model.url} {settings.model.name} {settings.model.alias}"


def _deny(root: Path, state: dict[str, Any], reason: str) -> int:
    slots.deny(root, state["coming"], state.get("coming_version", ""), reason)
    slots.clear(root / slots.spare(slots.active(root)))
    state.update(error=f"model {state.get('coming_version')} will not be used here: {reason}", failures=0)
    return EXIT_DENIED


def _follow(settings: Any, root: Path, state: dict[str, Any]) -> int:
    """Follows the alias. Raises Damaged, golden.Failed, edge_model.BadModel, the exceptions of a store, OSError."""
    record = slots.active(root)
    if record.get("fallback"):
        print(f"model {record['version']} is on probation: no look until that is over", flush=True)
        return 0
    here = {card["digest"] for slot in slots.SLOTS if (card := slots.checked(root, slot))}
    known = here | slots.denied(root).keys()
    settled = state.get("digest") in known
    opened = source.open_source(settings)
    pointer = opened.look(state.get("etag", "") if settled else "")
    if (
        pointer is None
        or settled
        and (pointer.version, pointer.digest or state["digest"]) == (state["version"], state["digest"])
    ):
        print(f"nothing new: {settings.model.alias} is version {state['version']}", flush=True)
        return 0
    if pointer.digest in known:
        place = "here" if pointer.digest in here else "denied on this device"
        print(f"{settings.model.alias} is version {pointer.version}, which is {place}", flush=True)
        state.update(digest=pointer.digest, version=pointer.version, etag=pointer.etag)
        return 0
    manifest = source.small(opened.read(f"{pointer.folder}/manifest.json", 0), "manifest.json")
    digest = hashlib.sha256(manifest).hexdigest()
    state.update(coming=pointer.digest or digest, coming_version=pointer.version)
    if pointer.digest and digest != pointer.digest:
        raise Damaged(
            f"manifest.json of version {pointer.version} is not the one that the pointer names (SHA-256 differs): "
            f"{manifest[:40]!r}"
        )
    if not pointer.digest and manifest.lstrip()[:1] != b"{":
        raise types.Unavailable(
            f"manifest.json of version {pointer.version} begins with {manifest[:40]!r}: a captive portal?"
        )
    if digest not in known and slots.is_resting(root, settings.model, digest):
        print(f"version {pointer.version} was too slow, and is tried again when model.interval_s is over", flush=True)
        return 0
    if digest not in known:
        _fill(settings, opened, pointer, manifest, digest, root / slots.spare(record))
        print(f"version {pointer.version} is here and checked", flush=True)
    state.update(digest=digest, version=pointer.version, etag=pointer.etag, attempts=0)
    return 0


def _fill(
    settings: Any, opened: source.Source, pointer: source.Pointer, manifest: bytes, digest: str, slot: Path
) -> None:
    """Writes the whole bundle into a slot, checked.json last."""
    if records.read(slot / "fetching.json").get("digest") != digest:
        slots.clear(slot)
        records.write(slot / "fetching.json", {"digest": digest, "version": pointer.version}, durable=True)
    (slot / "manifest.json").write_bytes(manifest)
    files = _files(edge_model.read_manifest(str(slot)))
    total = sum(size for _, size, _ in files)
    if total > settings.model.max_mb * MEGABYTE:
        raise edge_model.BadModel(
            f"its files are {total / MEGABYTE:.1f} MB, and model.max_mb is {settings.model.max_mb:g}"
        )
    disk = os.statvfs(slot)
    if disk.f_bavail * disk.f_frsize < total:
        raise types.Unavailable(f"{slot}: {total / MEGABYTE:.1f} MB are to come, and the disk has less")
    for path, size, sha256 in files:
        _fetch(opened, f"{pointer.folder}/{path}", slot / path, size, sha256)
    for folder in (slot, *{(slot / path).parent for path, _, _ in files}):
        sync_folder(folder)
    with open(slot / "manifest.json", "rb") as file:
        os.fsync(file.fileno())
    card = golden.check(slot, settings)
    records.write(slot / "checked.json", {"digest": digest, **card}, durable=True)


def _files(manifest: dict[str, Any]) -> list[tuple[str, int, str]]:
    """(path, bytes, SHA-256) of each file of a manifest.

    Raises BadModel if one leads outside its folder or is incomplete.
    """
    listed = [*(manifest["variants"].values() if isinstance(manifest["variants"], dict) else ()), *manifest["golden"]]
    files: list[tuple[str, int, str]] = []
    for entry in listed:
        path, size, sha256 = (
            entry.get(key) if isinstance(entry, dict) else None for key in ("file", "bytes", "sha256")
        )
        named = isinstance(path, str) and PATH.fullmatch(path) and re.fullmatch(r"[0-9a-f]{64}", str(sha256))
        if not named or type(size) is not int or size <= 0:
            raise edge_model.BadModel(f"manifest.json: {json.dumps(entry)[:120]} is not a file of a model")
        files.append((str(path), size, str(sha256)))
    return files


def _fetch(opened: source.Source, place: str, path: Path, size: int, sha256: str) -> None:
    """Fetches one file, from the end of the last attempt on. Raises Damaged and the exceptions of a store."""
    path.parent.mkdir(exist_ok=True)
    if path.exists() and path.stat().st_size == size and _sha256(path) == sha256:
        return
    part = path.with_name(f"{path.name}.part")
    there = part.stat().st_size if part.exists() else 0
    if there > size:
        part.unlink()
        there = 0
    began = there
    with open(part, "ab") as file:
        if there < size:
            for piece in opened.read(place, there):
                there += len(piece)
                if there > size:
                    break
                file.write(piece)
                file.flush()
        os.fsync(file.fileno())
    if there == began < size:
        part.unlink()  # the source has nothing after these bytes: perhaps they belong to another file
    if there < size:
        raise types.Unavailable(f"{place}: {there} of {size} bytes came; the rest follows")
    if there > size or _sha256(part) != sha256:
        start = part.read_bytes()[:40]
        part.unlink()
        fault = "too long" if there > size else "SHA-256 differs"
        raise Damaged(f"{place}: the received bytes, {start!r}..., are not the file of the manifest ({fault})")
    os.replace(part, path)  # not files.write_atomically: the part file must survive, so that a download resumes


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
