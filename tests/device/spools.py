"""Settings and frames for tests that open a spool directly."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from device.spool.entry import Entry, describe
from device.spool.spool import Spool

AT = datetime(2026, 3, 2, 14, 5, 9, 123456, UTC)


def settings(path: Path, **more: Any) -> SimpleNamespace:
    """The [spool] section with small quotas; `more` overrides settings."""
    values = {"path": str(path), "max_mb": 10.0, "free_mb": 0.0, "when_full": "oldest", "dead_mb": 0.05, **more}
    return SimpleNamespace(**values)


def put(spool: Spool, data: bytes = b"x" * 1000) -> tuple[Entry, bool, list[Entry]]:
    """Stores a frame; returns (its entry, True if kept, dropped entries)."""
    entry = describe([data], "porch-1", AT, spool.next_sequence())
    return entry, *spool.put(entry, [data])
