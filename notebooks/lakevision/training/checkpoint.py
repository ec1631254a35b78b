"""Checkpoints: a killed training resumes after its last whole epoch and ends with the same weights."""

import io
import json
import os
from typing import Any

import numpy as np

from device import files


def save(path: str, network: Any, optimizer: Any, state: dict[str, Any]) -> None:
    """Writes the weights of a Keras model and of its optimizer, and the state, into one file, whole or not at all.

    state: a dict of JSON values, with arrays under "best" (or None).
    """
    state, best = {name: value for name, value in state.items() if name != "best"}, state.get("best") or []
    arrays = {
        f"{kind}_{index:04d}": np.asarray(value)
        for kind, values in (
            ("network", network.get_weights()),
            ("optimizer", [variable.numpy() for variable in optimizer.variables]),
            ("best", best),
        )
        for index, value in enumerate(values)
    }
    whole = io.BytesIO()  # a zip is written with seeks, which a Unity Catalog volume refuses
    np.savez(whole, state=json.dumps(state), **arrays)
    files.write_atomically(path, whole.getvalue(), durable=True)


def restore(path: str, network: Any, optimizer: Any) -> dict[str, Any] | None:
    """Loads the content of save() into a model and a built optimizer.

    Returns the state, or None without a checkpoint.
    """
    if not os.path.exists(path):
        return None
    with np.load(path, allow_pickle=False) as kept:
        arrays = {
            kind: [kept[name] for name in sorted(kept.files) if name.startswith(f"{kind}_")]
            for kind in ("network", "optimizer", "best")
        }
        state = json.loads(str(kept["state"]))
    network.set_weights(arrays["network"])
    for variable, value in zip(optimizer.variables, arrays["optimizer"], strict=True):
        variable.assign(value)
    return {**state, "best": arrays["best"] or None}
