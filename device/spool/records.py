"""Small JSON records that processes leave for each other: replaced whole, never seen half written."""

import json
import os
import sys


def read(path):
    """The record as a dict; {} where there is none yet, or where a power cut damaged it (said on stderr)."""
    try:
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        print(f"{path} is damaged and begins anew: {error}", file=sys.stderr, flush=True)
        return {}
    return record if isinstance(record, dict) else {}


def write(path, record, durable=False):
    """Replaces the record. durable: it outlives a power cut that comes after the return. Raises OSError."""
    temporary = f"{path}.new"
    with open(temporary, "w", encoding="utf-8") as file:
        file.write(json.dumps(record, indent=1))
        file.flush()
        if durable:
            os.fsync(file.fileno())
    os.replace(temporary, path)
    if durable:
        sync_folder(os.path.dirname(path))


def write_text(path, text):
    """A note for a person: where it can't be written, the journal has it."""
    try:
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        print(f"{path}: {error.strerror}; it would have said: {text.strip()}", file=sys.stderr, flush=True)


def sync_folder(path):
    """Makes the folder's entries outlive a power cut."""
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
