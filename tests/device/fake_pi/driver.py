"""Replaces the hardware below picamera2, and the packages that only video needs.

Import this module first in the agent's process.
"""

import os
import sys
import types


class _Names(type):
    """A class that has every attribute (PixelFormats.RGB888)."""

    def __getattr__(cls, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return name


class _Anything(types.ModuleType):
    """A package that picamera2 imports for video, previews or raw files; a still needs none of them."""

    __path__ = []

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (), {})


for _name in ("av", "prctl", "pykms", "kms", "pidng", "pidng.core", "pidng.camdefs", "libarchive", "tqdm", "OpenEXR"):
    sys.modules.setdefault(_name, _Anything(_name))


def memory_for_dma():
    """Takes buffers from memfd instead of /dev/dma_heap; syncing the processor's cache with them is a no-op."""
    from picamera2 import dma_heap
    from picamera2.allocators import dmaallocator

    class Heap:
        def alloc(self, name, size):
            file = os.memfd_create(name)
            os.ftruncate(file, size)
            return dma_heap.UniqueFD(file)

        def close(self):
            """Nothing was opened."""

    dmaallocator.DmaHeap = Heap
    dmaallocator.fcntl = types.SimpleNamespace(ioctl=lambda *_: 0)
