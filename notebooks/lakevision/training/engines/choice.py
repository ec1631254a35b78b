"""Chooses the engine that connects the ranks: the setting training.engine, or what is installed."""

from __future__ import annotations

import importlib
from types import ModuleType

MODULES = {"horovod": "horovod_ranks", "collectives": "collective_ranks"}


class EngineMissing(RuntimeError):
    """The chosen engine is not installed here. The message says why, and what to do."""


def module(name: str) -> ModuleType:
    """The module of an engine: "horovod" or "collectives"."""
    return importlib.import_module(f"lakevision.training.engines.{MODULES[name]}")


def chosen(wanted: str) -> str:
    """The engine for the setting training.engine: "horovod" or "collectives". Prints why `auto` avoids Horovod.

    Raises EngineMissing if wanted is "horovod" and Horovod does not work here.
    """
    if wanted == "collectives":
        return wanted
    fault = horovod_fault()
    if not fault:
        return "horovod"
    if wanted == "horovod":
        raise EngineMissing(
            f"training.engine is horovod, but {fault}. Set training.engine to auto or collectives, or let "
            "config/setup.sh build Horovod"
        )
    print(f"the ranks use TensorFlow's collectives, because {fault}")
    return "collectives"


def horovod_fault() -> str:
    """Why Horovod does not work in this process: a clause, "" if it works."""
    try:
        import horovod.tensorflow as hvd
    except ImportError as error:
        return f"Horovod cannot be imported ({error})"
    except Exception as error:  # TensorFlow's NotFoundError: built for another TensorFlow
        return f"Horovod was built for another TensorFlow ({str(error).splitlines()[0]})"
    return "" if hvd.gloo_built() else "Horovod was built without Gloo"
