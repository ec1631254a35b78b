"""The check that frames arrive in a store, and that a repeated upload is harmless."""

from __future__ import annotations

from collections.abc import Callable

import harness


def arrive(agent: harness.Agent, read: Callable[[], dict[str, bytes]], frames: int = 6) -> None:
    """Uploads frames, then uploads them once more, as after a power cut that restored them; then reckons.

    read: returns the store's objects, key to bytes.
    """
    agent.run("capture", "--frames", str(frames))
    spooled = {name: (agent.spool / "ready" / name).read_bytes() for name in agent.waiting()}
    agent.run("upload", "--once")
    for name, data in spooled.items():
        (agent.spool / "ready" / name).write_bytes(data)
    assert agent.run("upload", "--once").stdout.count("already there") == len(spooled) >= frames
    assert harness.reckon(agent, read()) == len(spooled)
