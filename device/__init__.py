"""The agent on the device, and the one transform that device and lakehouse share. Start reading with __main__.py."""

import importlib


def __getattr__(name: str) -> object:
    """Serves `from device import transform`, which models registered before the packages existed still execute. Raises AttributeError."""
    if name == "transform":
        return importlib.import_module("device.model.transform")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
