"""A training that was killed goes on after its last whole epoch, and ends with the same weights as one that was not."""

import io
import json
import os
import uuid
from pathlib import Path

import numpy as np


def save(path, network, optimizer, state):
    """Keeps a Keras model's weights, its optimizer's and state (a dict of JSON values, and arrays under "best") in one file, all or nothing."""
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
    partial, whole = Path(f"{path}.{uuid.uuid4().hex[:8]}.part"), io.BytesIO()
    np.savez(
        whole, state=json.dumps(state), **arrays
    )  # a zip is written back and forth, which a volume of Unity Catalog refuses
    with open(partial, "wb") as file:
        file.write(whole.getbuffer())
        file.flush()
        os.fsync(file.fileno())
    os.replace(partial, path)


def restore(path, network, optimizer):
    """Puts what save() kept back into a model and an optimizer that has been built. Returns the state; None where there is no checkpoint yet."""
    if not os.path.exists(path):
        return None
    with np.load(path, allow_pickle=False) as kept:
        of = {
            kind: [kept[name] for name in sorted(kept.files) if name.startswith(f"{kind}_")]
            for kind in ("network", "optimizer", "best")
        }
        state = json.loads(str(kept["state"]))
    network.set_weights(of["network"])
    for variable, value in zip(optimizer.variables, of["optimizer"]):
        variable.assign(value)
    return {**state, "best": of["best"] or None}
