"""Lets a process keep the memory that it frees.

glibc returns every freed block above 128 kB to the kernel and requests a new one, and each new page costs a page fault.
For a photograph's pixels this takes a third of the time that describing the photograph takes on a virtual machine;
for a network's activations it takes a good part of a training step.
"""

from __future__ import annotations

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 64 << 20  # bytes
LARGEST_MMAP_THRESHOLD = 32 << 20  # of older glibc on 64-bit systems (2.31 of Bullseye), which refuses more


def keep() -> None:
    """Keeps freed blocks up to KEPT bytes in this process. Does nothing without glibc (macOS, Windows, musl)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return
    mallopt(M_TRIM_THRESHOLD, KEPT)
    if not mallopt(M_MMAP_THRESHOLD, KEPT):
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
