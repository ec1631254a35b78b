"""The agent on the device, and the one transform of device and lakehouse. Start with __main__.py.

The packages: camera, spool, store, model, score, simulation. Python 3.9 or newer, Pillow and obstore suffice.
"""

import importlib


def __getattr__(name: str) -> object:
    """Keeps `from device import transform` working: models registered before the packages existed still execute it.

    Raises AttributeError for every other name.
    """
    if name == "transform":
        return importlib.import_module("device.model.transform")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
