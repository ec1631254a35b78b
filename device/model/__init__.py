"""The model on the device: the transform, the edge bundle, fetching, checking, switching.

May import the store and the spool. Start reading with edge_model.py, then sync.py.
"""

from typing import Any


def decide(*arguments: Any) -> str:
    """edge_model.decide: models registered before the packages existed call it here, as `from device import model`."""
    from device.model import edge_model

    return edge_model.decide(*arguments)
