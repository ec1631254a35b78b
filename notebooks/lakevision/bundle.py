"""Reads databricks.yml the way the Databricks CLI does, as far as this machine needs it: variables, references, the tasks of a job."""

import re
from dataclasses import dataclass
from pathlib import Path

import yaml

from lakevision import workspace

REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.-]+)\}")


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


def resolve(bundle, target, variables=None):
    """The bundle of a target with every ${...} filled in. variables: values that differ from the defaults. Raises BundleError."""
    own = bundle.get("targets", {}).get(target) or {}
    chosen = {name: (own.get("variables") or {}).get(name, entry.get("default")) for name, entry in bundle.get("variables", {}).items()}
    chosen.update(variables or {})

    def value(reference, seen):
        if reference in seen:
            raise BundleError(f"databricks.yml: ${{{reference}}} refers to itself")
        parts = reference.split(".")
        if parts[0] == "var" and len(parts) == 2 and parts[1] in chosen:
            if chosen[parts[1]] is None:
                raise BundleError(f"databricks.yml: variable {parts[1]} has no default and no value")
            return fill(chosen[parts[1]], (*seen, reference))
        if reference == "bundle.target":
            return target
        found = bundle
        for part in parts:
            if not isinstance(found, dict) or part not in found:
                raise BundleError(f"databricks.yml: ${{{reference}}} refers to nothing")
            found = found[part]
        return fill(found, (*seen, reference))

    def fill(thing, seen=()):
        if isinstance(thing, dict):
            return {key: fill(entry, seen) for key, entry in thing.items()}
        if isinstance(thing, list):
            return [fill(entry, seen) for entry in thing]
        if not isinstance(thing, str):
            return thing
        whole = REFERENCE.fullmatch(thing)
        return value(whole[1], seen) if whole else REFERENCE.sub(lambda match: str(value(match[1], seen)), thing)

    return fill({key: entry for key, entry in bundle.items() if key != "targets"})


def tasks(resolved, job="retrain", folder=None):
    """The Tasks of a job in an order that respects depends_on, ties in the order of the file. Raises BundleError."""
    folder = Path(folder or workspace.REPOSITORY)
    jobs = resolved["resources"].get("jobs", {})
    if job not in jobs:
        raise BundleError(f"databricks.yml has no job {job!r}; there are {', '.join(jobs)}")
    waiting = {}
    for entry in jobs[job].get("tasks", []):
        notebook = entry.get("notebook_task", {})
        path = folder / notebook.get("notebook_path", "")
        if not path.is_file():
            raise BundleError(f"databricks.yml: job {job}, task {entry.get('task_key')}: notebook {notebook.get('notebook_path')!r} does not exist")
        after = tuple(dependency["task_key"] for dependency in entry.get("depends_on", []))
        waiting[entry["task_key"]] = Task(path.stem, path, notebook.get("base_parameters", {}), after)
    for key, task in waiting.items():
        unknown = set(task.after) - set(waiting)
        if unknown:
            raise BundleError(f"databricks.yml: job {job}, task {key} depends on {', '.join(sorted(unknown))}, which is no task of it")
    order, done = [], set()
    while len(done) < len(waiting):
        ready = next((key for key, task in waiting.items() if key not in done and set(task.after) <= done), None)
        if ready is None:
            raise BundleError(f"databricks.yml: job {job}: tasks {', '.join(sorted(set(waiting) - done))} wait for each other")
        order.append(waiting[ready])
        done.add(ready)
    return order
