"""Reads databricks.yml the way the Databricks CLI does, as far as this machine needs it: targets, variables, names by mode, references, tasks.

What a mode does to names, schedules, tags and run_as follows the CLI's own sources (bundle/config/mutator/resourcemutator: apply_presets.go,
apply_target_mode.go, run_as.go, apply_bundle_permissions.go). lakevision/job/bundle_check.py says what is wrong in a bundle.
"""

import copy
import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from lakevision.platform import workspace

REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")
USER = "you@example.com"  # who deploys, where nobody is logged in to a workspace
ITEM_KEYS = (
    "task_key",
    "job_cluster_key",
    "name",
    "principal",
)  # a target's list items are merged into those with the same key
LEVELS = {
    "jobs": {"CAN_MANAGE": "CAN_MANAGE", "CAN_VIEW": "CAN_VIEW", "CAN_RUN": "CAN_MANAGE_RUN"},
    "experiments": {"CAN_MANAGE": "CAN_MANAGE", "CAN_VIEW": "CAN_READ"},
}


class BundleError(ValueError):
    """databricks.yml can't be followed; the message names the place in it."""


@dataclass(frozen=True)
class Task:
    """One notebook of a job. path: absolute; parameters: what its widgets get; after: names of the tasks it waits for."""

    name: str
    path: Path
    parameters: dict
    after: tuple


def read(path=None):
    """databricks.yml as a dict. Raises BundleError."""
    path = Path(path or workspace.REPOSITORY / "databricks.yml")
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as error:
        raise BundleError(f"{path.name}: {error}") from error
    if not isinstance(content, dict) or "resources" not in content:
        raise BundleError(f"{path.name} has no resources")
    return content


def default_target(content):
    """Name of the target that the CLI takes where none is named. Raises BundleError."""
    targets = content.get("targets", {})
    chosen = [name for name, target in targets.items() if (target or {}).get("default")] or list(targets)[:1]
    if len(chosen) != 1:
        raise BundleError(
            f"databricks.yml: targets with default: true: {', '.join(chosen) or 'none'}; there must be one"
        )
    return chosen[0]


def stand_ins(content):
    """Values for variables that have no default: what the local runner says, to which only the order and the parameters of tasks matter."""
    return {name: USER for name, entry in content.get("variables", {}).items() if "default" not in entry}


def resolve(content, target, variables=None, user=USER):
    """The bundle as a target deploys it. variables: given by --var; user: who deploys. Raises BundleError naming all that can't be filled in."""
    resolved, faults = look(content, target, variables, user)
    if faults:
        raise BundleError("\n".join(f"databricks.yml: {fault}" for fault in faults))
    return resolved


def look(content, target, variables=None, user=USER):
    """(the bundle as a target deploys it, faults in words); a reference that can't be filled in stays. Raises BundleError for an unknown target."""
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
        _developed(merged, short)
    _shared(merged)
    merged = _filled(
        merged,
        {**known, **_flat(merged.get("resources", {}), "resources.")},
        faults,
        lambda name: name.startswith("resources."),
    )
    return merged, list(dict.fromkeys(faults))


def _merged(base, more):
    """base with a target's own things laid over it: mappings by key, lists by the key that names an item, else one behind the other."""
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


def _filled(thing, known, faults, ours):
    """thing with its ${...} filled in from known, {name: value that may hold references}; those that ours(name) disowns stay for later."""

    def value(name, place, seen):
        if name in seen:
            faults.append(f"{place}: ${{{name}}} refers to itself")
        elif name not in known:
            hint = ": it has no default, no value in this target, and no --var" if name.startswith("var.") else ""
            faults.append(f"{place}: ${{{name}}} refers to nothing{hint}")
        else:
            return fill(known[name], place, (*seen, name))
        return f"${{{name}}}"

    def fill(part, place, seen=()):
        if isinstance(part, dict):
            return {key: fill(entry, f"{place}.{key}" if place else str(key), seen) for key, entry in part.items()}
        if isinstance(part, list):
            return [fill(entry, f"{place}[{_name(entry, number)}]", seen) for number, entry in enumerate(part)]
        if not isinstance(part, str):
            return part
        whole = REFERENCE.fullmatch(part)
        if whole:
            return value(whole[1], place, seen) if ours(whole[1]) else part
        return REFERENCE.sub(lambda found: str(value(found[1], place, seen)) if ours(found[1]) else found[0], part)

    return fill(thing, "")


def _name(entry, number):
    return next((str(entry[key]) for key in ITEM_KEYS if isinstance(entry, dict) and key in entry), str(number))


def _flat(thing, prefix):
    """{"resources.schemas.x.name": value, ...} of all that a reference can name."""
    flat = {}
    for key, value in thing.items() if isinstance(thing, dict) else ():
        flat[f"{prefix}{key}"] = value
        flat.update(_flat(value, f"{prefix}{key}."))
    return flat


def _developed(bundle, short):
    """What `mode: development` does: names that can't collide with another person's, schedules paused, a tag."""
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


def _shared(bundle):
    """Gives the jobs the bundle's run_as, and jobs and experiments its permissions, in their own words."""
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


def parameters(job, task):
    """What a task's notebook gets in its widgets: {name: value}. The job's own are pushed down to it, and outrank the task's."""
    return {
        **(task.get("notebook_task", {}).get("base_parameters") or {}),
        **{entry.get("name"): entry.get("default") for entry in job.get("parameters", [])},
    }


def tasks(resolved, job="tour", folder=None):
    """The Tasks of a job in an order that respects depends_on, ties in the order of the file. Raises BundleError."""
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
                f"databricks.yml: job {job}, task {key} depends on {', '.join(sorted(unknown))}, which is no task of it"
            )
    order, left = in_order({key: task.after for key, task in waiting.items()})
    if left:
        raise BundleError(f"databricks.yml: job {job}: tasks {', '.join(left)} wait for each other")
    return [waiting[key] for key in order]


def in_order(after):
    """(keys in an order in which none comes before those it waits for, keys that wait for each other). after: {key: keys that it waits for}."""
    order = []
    while True:
        ready = next((key for key, before in after.items() if key not in order and set(before) <= set(order)), None)
        if ready is None:
            return order, sorted(set(after) - set(order))
        order.append(ready)
