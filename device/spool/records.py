"""Small JSON records that processes leave for each other. Each write is atomic."""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from device import files


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The record; {} if there is none, or if a power cut damaged it (reported on stderr)."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        print(f"{path} is damaged and begins anew: {error}", file=sys.stderr, flush=True)
        return {}
    return record if isinstance(record, dict) else {}


def write(path: str | os.PathLike[str], record: dict[str, Any], durable: bool = False) -> None:
    """Replaces the record. durable: the new record survives a later power cut. Raises OSError."""
    files.write_atomically(path, json.dumps(record, indent=1), durable)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a note for a person; if this fails, the note goes to the journal."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"{path}: {error.strerror}; the note was: {text.strip()}", file=sys.stderr, flush=True)
