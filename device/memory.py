"""Lets a process keep the memory that it frees.

glibc hands every block above 128 kB back to the kernel and asks for a new one, and each of its pages costs a fault: for a photograph's pixels a third
of the time that describing it takes on a virtual machine, for a network's activations a good part of a step.
"""

import ctypes

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h
KEPT = 64 << 20  # bytes


def keep():
    """Keeps blocks up to KEPT bytes, in this process from now on. Where another allocator rules (macOS, Windows, musl) nothing changes."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):
        return
    for parameter in (M_TRIM_THRESHOLD, M_MMAP_THRESHOLD):
        mallopt(parameter, KEPT)
