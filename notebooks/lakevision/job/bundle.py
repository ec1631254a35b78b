"""Reads databricks.yml as the Databricks CLI does: targets, variables, modes, references, tasks.

The effects of a mode on names, schedules, tags and run_as follow the CLI's own sources
(bundle/config/mutator/resourcemutator: apply_presets.go, apply_target_mode.go, run_as.go, apply_bundle_permissions.go).
lakevision/job/bundle_check.py lists the faults of a bundle.
"""

import copy
import posixpath
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from lakevision.platform import workspace

REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
USER = "you@example.com"  # stands for the deployer, because nobody is logged in to a workspace
# A target's list items are merged into the items with the same value of one of these keys.
ITEM_KEYS = ("task_key", "job_cluster_key", "name", "principal")
LEVELS = {
    "jobs": {"CAN_MANAGE": "CAN_MANAGE", "CAN_VIEW": "CAN_VIEW", "CAN_RUN": "CAN_MANAGE_RUN"},
    "experiments": {"CAN_MANAGE": "CAN_MANAGE", "CAN_VIEW": "CAN_READ"},
}


class BundleError(ValueError):
    """databricks.yml is faulty; the message names the place in the file."""


@dataclass(frozen=True)
class Task:
    """One notebook of a job. path: absolute; parameters: values of its widgets; after: names of the tasks before it."""

    name: str
    path: Path
    parameters: dict[str, str]
    after: tuple[str, ...]


def read(path: str | Path | None = None) -> dict:
    """databricks.yml, or the file at path, as a dict. Raises BundleError."""
    path = Path(path or workspace.REPOSITORY / "databricks.yml")
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{path.name}: {error}") from error
    if not isinstance(content, dict) or "resources" not in content:
        raise BundleError(f"{path.name} has no resources")
    return content


def default_target(content: dict) -> str:
    """The name of the target that the CLI takes by default. Raises BundleError."""
    targets = content.get("targets", {})
    chosen = [name for name, target in targets.items() if (target or {}).get("default")] or list(targets)[:1]
    if len(chosen) != 1:
        raise BundleError(
            f"databricks.yml: targets with default: true: {', '.join(chosen) or 'none'}; there must be one"
        )
    return chosen[0]


def stand_ins(content: dict) -> dict[str, str]:
    """Values for variables without a default. The local runner needs only the tasks' order and parameters."""
    return {name: USER for name, entry in content.get("variables", {}).items() if "default" not in entry}


def resolve(content: dict, target: str, variables: Mapping[str, str] | None = None, user: str = USER) -> dict:
    """The bundle as a target deploys it. Raises BundleError naming all references that can't be filled in.

    content: of read(); variables: given by --var; user: e-mail address of the deployer.
    """
    resolved, faults = look(content, target, variables, user)
    if faults:
        raise BundleError("\n".join(f"databricks.yml: {fault}" for fault in faults))
    return resolved


def look(
    content: dict, target: str, variables: Mapping[str, str] | None = None, user: str = USER
) -> tuple[dict, list[str]]:
    """(the bundle as a target deploys it, faults in words). Raises BundleError for an unknown target.

    A reference that can't be filled in stays as it is. Arguments as of resolve().
    """
    if target not in content.get("targets", {}):
        raise BundleError(f"databricks.yml has no target {target!r}; there are {', '.join(content.get('targets', {}))}")
    own = content["targets"][target] or {}
    unknown = set(variables or {}) - set(content.get("variables", {}))
    faults = [f"variable {name} is given, and not declared in variables" for name in sorted(unknown)]
    values = {
        name: entry.get("default") for name, entry in content.get("variables", {}).items() if isinstance(entry, dict)
    }
    for name, value in (own.get("variables") or {}).items():
        if name not in values:
            faults.append(f"targets.{target}.variables.{name} is not declared in variables")
        values[name] = value["default"] if isinstance(value, dict) and "default" in value else value
    values.update(variables or {})
    merged = _merged(
        copy.deepcopy({key: value for key, value in content.items() if key not in ("targets", "variables")}),
        {key: value for key, value in own.items() if key not in ("variables", "default", "mode")},
    )
    short = re.sub(r"[^A-Za-z0-9]", "_", user.partition("@")[0])
    known = {
        "bundle.target": target,
        "bundle.name": merged.get("bundle", {}).get("name"),
        "bundle.git.commit": "0" * 40,
        "workspace.current_user.userName": user,
        "workspace.current_user.short_name": short,
        **{f"var.{name}": value for name, value in values.items() if value is not None},
        **{f"variables.{name}": value for name, value in values.items() if value is not None},
        "workspace.root_path": (
            merged.get("workspace", {}).get("root_path")
            or f"/Workspace/Users/{user}/.bundle/${{bundle.name}}/${{bundle.target}}"
        ),
        "workspace.file_path": "${workspace.root_path}/files",
    }
    merged = _filled(merged, known, faults, lambda name: not name.startswith("resources."))
    if own.get("mode") == "development":
        _develop(merged, short)
    _share(merged)
    merged = _filled(
        merged,
        {**known, **_flat(merged.get("resources", {}), "resources.")},
        faults,
        lambda name: name.startswith("resources."),
    )
    return merged, list(dict.fromkeys(faults))


def _merged(base: Any, more: Any) -> Any:
    """base with a target's own entries on top.

    Mappings are merged by key, lists by the key that names an item; other list items are appended.
    """
    if isinstance(base, dict) and isinstance(more, dict):
        return {
            **base,
            **{key: _merged(base[key], value) if key in base else copy.deepcopy(value) for key, value in more.items()},
        }
    if not (isinstance(base, list) and isinstance(more, list)):
        return copy.deepcopy(more)
    result = list(base)
    for item in more:
        key = next((key for key in ITEM_KEYS if isinstance(item, dict) and key in item), None)
        same = next(
            (
                place
                for place, other in enumerate(result)
                if key and isinstance(other, dict) and other.get(key) == item[key]
            ),
            None,
        )
        if same is None:
            result.append(copy.deepcopy(item))
        else:
            result[same] = _merged(result[same], item)
    return result


def _filled(content: dict, known: dict[str, Any], faults: list[str], chosen: Callable[[str], bool]) -> dict:
    """content with its ${...} filled in from known, whose values may contain references. Appends to faults.

    chosen(name): whether to fill in this reference; the others stay.
    """

    def value(name: str, place: str, parents: tuple[str, ...]) -> Any:
        if name in parents:
            faults.append(f"{place}: ${{{name}}} refers to itself")
        elif name not in known:
            hint = ": it has no default, no value in this target, and no --var" if name.startswith("var.") else ""
            faults.append(f"{place}: ${{{name}}} refers to nothing{hint}")
        else:
            return fill(known[name], place, (*parents, name))
        return f"${{{name}}}"

    def fill(part: Any, place: str, parents: tuple[str, ...] = ()) -> Any:
        if isinstance(part, dict):
            return {key: fill(entry, f"{place}.{key}" if place else str(key), parents) for key, entry in part.items()}
        if isinstance(part, list):
            return [fill(entry, f"{place}[{_name(entry, number)}]", parents) for number, entry in enumerate(part)]
        if not isinstance(part, str):
            return part
        whole = REFERENCE.fullmatch(part)
        if whole:
            return value(whole[1], place, parents) if chosen(whole[1]) else part
        return REFERENCE.sub(lambda match: str(value(match[1], place, parents)) if chosen(match[1]) else match[0], part)

    return fill(content, "")


def _name(entry: Any, number: int) -> str:
    return next((str(entry[key]) for key in ITEM_KEYS if isinstance(entry, dict) and key in entry), str(number))


def _flat(content: Any, prefix: str) -> dict[str, Any]:
    """{"resources.schemas.x.name": value, ...} of all values that a reference can name."""
    flat = {}
    for key, value in content.items() if isinstance(content, dict) else ():
        flat[f"{prefix}{key}"] = value
        flat.update(_flat(value, f"{prefix}{key}."))
    return flat


def _develop(bundle: dict, short: str) -> None:
    """Applies `mode: development`: names that can't collide with another person's, paused schedules, a tag."""
    resources = bundle.get("resources", {})
    for kind, prefix in (
        ("jobs", f"[dev {short}] "),
        ("schemas", f"dev_{short}_"),
        ("registered_models", f"dev_{short}_"),
    ):
        for resource in resources.get(kind, {}).values():
            resource["name"] = prefix + str(resource.get("name", ""))
    for experiment in resources.get("experiments", {}).values():
        folder, name = posixpath.split(str(experiment.get("name", "")))
        experiment["name"] = posixpath.join(folder, f"[dev {short}] {name}")
    for job in resources.get("jobs", {}).values():
        job["tags"] = {**job.get("tags", {}), "dev": short}
        if job.get("schedule"):
            job["schedule"].setdefault("pause_status", "PAUSED")


def _share(bundle: dict) -> None:
    """Gives the bundle's run_as to the jobs, and its permissions to jobs and experiments, with their own level
    names.
    """
    for kind, levels in LEVELS.items():
        for resource in bundle.get("resources", {}).get(kind, {}).values():
            if kind == "jobs" and bundle.get("run_as"):
                resource.setdefault("run_as", dict(bundle["run_as"]))
            more = [
                {**permission, "level": levels[permission["level"]]}
                for permission in bundle.get("permissions", [])
                if permission.get("level") in levels
            ]
            if more:
                resource["permissions"] = [*resource.get("permissions", []), *more]


def parameters(job: dict, task: dict) -> dict[str, Any]:
    """{widget of a task's notebook: value}. Parameters of the job are pushed down to the task and override its own."""
    return {
        **(task.get("notebook_task", {}).get("base_parameters") or {}),
        **{entry.get("name"): entry.get("default") for entry in job.get("parameters", [])},
    }


def tasks(resolved: dict, job: str = "tour", folder: str | Path | None = None) -> list[Task]:
    """The tasks of a job in an order that respects depends_on; ties keep the order of the file. Raises BundleError.

    resolved: of resolve(); folder: that the notebooks' paths start from, by default the repository.
    """
    folder = Path(folder or workspace.REPOSITORY)
    jobs = resolved["resources"].get("jobs", {})
    if job not in jobs:
        raise BundleError(f"databricks.yml has no job {job!r}; there are {', '.join(jobs)}")
    waiting = {}
    for entry in jobs[job].get("tasks", []):
        notebook = entry.get("notebook_task", {}).get("notebook_path", "")
        path = folder / notebook
        if not path.is_file():
            raise BundleError(
                f"databricks.yml: job {job}, task {entry.get('task_key')}: notebook {notebook!r} does not exist"
            )
        after = tuple(dependency["task_key"] for dependency in entry.get("depends_on", []))
        waiting[entry["task_key"]] = Task(path.stem, path, parameters(jobs[job], entry), after)
    for key, task in waiting.items():
        unknown = set(task.after) - set(waiting)
        if unknown:
            raise BundleError(
                f"databricks.yml: job {job}, task {key} depends on "
                f"{', '.join(sorted(unknown))}, which is not one of its tasks"
            )
    order, left = in_order({key: task.after for key, task in waiting.items()})
    if left:
        raise BundleError(f"databricks.yml: job {job}: tasks {', '.join(left)} wait for each other")
    return [waiting[key] for key in order]


def in_order(after: Mapping[str, Iterable[str]]) -> tuple[list[str], list[str]]:
    """(keys in an order in which each follows the keys it waits for, keys that wait for each other).

    after: {key: keys that it waits for}.
    """
    order: list[str] = []
    while True:
        ready = next((key for key, before in after.items() if key not in order and set(before) <= set(order)), None)
        if ready is None:
            return order, sorted(set(after) - set(order))
        order.append(ready)
