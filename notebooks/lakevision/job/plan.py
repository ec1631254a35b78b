"""What a command of notebooks/run.py works on: settings, lakehouse and notebooks in order."""

import argparse
import hashlib
import json
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from lakevision.job import bundle
from lakevision.platform import config, workspace

LOCAL = workspace.REPOSITORY / ".local"
# Settings that name a place. The targets of the bundle name places in a workspace; here config/local.yml replaces them.
PLACE_SETTINGS = (
    "storage.landing",
    "storage.edge",
    "storage.catalog",
    "storage.schema",
    "storage.mlflow_uri",
    "storage.registry_uri",
    "storage.experiment",
    "deploy.model",
)


class OutsideLocal(ValueError):
    """--fresh would delete a folder outside .local."""


@dataclass
class Lakehouse:
    """The settings of a command.

    place_words, set_words: the notebooks' parameters `place` and `set`, as lists of section.key=value.
    """

    cfg: config.Config
    place_words: list[str]
    set_words: list[str]

    @property
    def places(self) -> workspace.Places:
        """Folders and tables; the folders are made."""
        return workspace.places(self.cfg)


def lakehouse(images: str | None, target: str, settings: list[str]) -> Lakehouse:
    """Loads the settings for a set of photographs (a folder or URL; None for simulated ones) and a target.

    Raises FileNotFoundError for a missing folder, config.ConfigError, bundle.BundleError.
    """
    set_words, root = list(settings), LOCAL / "lakehouse"
    if images:
        source = images if "://" in images else str(Path(images).expanduser().resolve())
        if "://" not in source and not Path(source).is_dir():
            raise FileNotFoundError(f"--images {images}: no such folder")
        # Each set of photographs has a lakehouse of its own: a model trained on a mixture of two sets is useless.
        root = LOCAL / f"lakehouse-{Path(source).name or 'images'}-{hashlib.sha256(source.encode()).hexdigest()[:6]}"
        set_words += ["capture.source=folder", f"capture.path={json.dumps(source)}"]
    place_words = [f"storage.root={json.dumps(str(root))}"]
    if target in bundle.read()["targets"]:
        local = config.load("local").flat()
        place_words += [f"{name}={json.dumps(local[name])}" for name in PLACE_SETTINGS]
    return Lakehouse(config.load(target, place_words + set_words), place_words, set_words)


def tasks(given: argparse.Namespace, lake: Lakehouse) -> list[bundle.Task]:
    """The tasks of a job with their parameters on this machine, in order, cut by --from and --only.

    given: the options of `run`. Raises bundle.BundleError for an unknown job or notebook, and if --images is given for
    a job without 01_capture.
    """
    content = bundle.read()
    target = given.target if given.target in content["targets"] else bundle.default_target(content)
    variables = {**bundle.stand_ins(content), "set": shlex.join(lake.set_words)}
    # An empty commit: in a checkout, the commit comes from git.
    own = {"config": given.target, "place": shlex.join(lake.place_words), "commit": ""}
    chosen = [
        bundle.Task(task.name, task.path, {**task.parameters, **own}, task.after)
        for task in bundle.tasks(bundle.resolve(content, target, variables), given.job)
    ]
    names = [task.name for task in chosen]
    if given.images and "01_capture" not in names:
        raise bundle.BundleError(
            f"--images lands photographs by 01_capture, which job {given.job} does not run: run --job tour first"
        )
    for option, name in (("--from", given.first), ("--only", given.only)):
        if name and name not in names:
            raise bundle.BundleError(f"{option} {name}: job {given.job} has {', '.join(names)}")
    if given.first:
        chosen = chosen[names.index(given.first) :]
    return [task for task in chosen if task.name == given.only] if given.only else chosen


def forget(root: str | Path) -> None:
    """Deletes a lakehouse. Raises OutsideLocal for a folder outside .local."""
    if LOCAL not in Path(root).resolve().parents:
        raise OutsideLocal(f"--fresh removes folders below .local only, not {root}")
    shutil.rmtree(root, ignore_errors=True)
