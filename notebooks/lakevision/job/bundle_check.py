"""Finds faults in databricks.yml without a workspace, some of which `bundle validate` misses.

    python -m lakevision.job.bundle_check dev                       # with notebooks/ on PYTHONPATH
    python -m lakevision.job.bundle_check prod service_principal=<application id> notify=<e-mail>

Unknown fields, wrong enums and missing fields of jobs, schemas and volumes are found by the types of
databricks-bundles, which is not installed at run time: see tests/job/test_bundle_types.py. databricks-bundles has no
types for registered models and experiments: their fields are listed below, from the CLI's bundle/config/resources.
"""

import ast
import difflib
import sys
import zoneinfo
from collections.abc import Iterable, Mapping
from pathlib import Path

from lakevision.job import bundle, quartz
from lakevision.platform import config, workspace

TOP = {"bundle", "variables", "resources", "targets", "sync", "permissions", "run_as", "workspace", "include"}
TOP |= {"artifacts", "presets", "experimental", "scripts", "python", "environments"}
KINDS = {"jobs", "schemas", "volumes", "registered_models", "experiments"}
FIELDS = {
    "registered_models": {"catalog_name", "schema_name", "name", "comment", "storage_location", "grants", "lifecycle"},
    "experiments": {"name", "artifact_location", "tags", "permissions", "lifecycle"},
}
NEEDED = {"registered_models": {"catalog_name", "schema_name", "name"}, "experiments": {"name"}}


def check(
    content: dict,
    target: str,
    variables: Mapping[str, str] | None = None,
    user: str = bundle.USER,
    folder: str | Path | None = None,
) -> list[str]:
    """All faults of a bundle for one of its targets, as "place: fault".

    content: of bundle.read(); variables: given by --var; user: e-mail address of the deployer; folder: the repository.
    Raises bundle.BundleError for an unknown target.
    """
    folder = Path(folder or workspace.REPOSITORY)
    resolved, faults = bundle.look(content, target, variables, user)
    faults = [*_outside(content), *faults, *_mode(content, target, resolved, user)]
    resources = resolved.get("resources", {})
    for kind, entries in resources.items():
        if kind not in KINDS:
            faults.append(f"resources.{kind}: unknown here{_near(kind, KINDS)}")
            continue
        for key, entry in entries.items():
            faults += _resource(f"resources.{kind}.{key}", kind, entry, resources)
            if kind == "jobs":
                faults += _job(f"resources.jobs.{key}", entry, folder)
                faults += _settings(f"resources.jobs.{key}", entry, resources)
    return list(dict.fromkeys(faults))


def _near(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name), known, 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(sorted(known))}"


def _resource(place: str, kind: str, entry: dict, resources: dict) -> list[str]:
    """Faults of a resource's own fields. kind: of the resource, as in KINDS."""
    faults = []
    if kind in FIELDS:
        faults += [
            f"{place}.{field}: no such field{_near(field, FIELDS[kind])}" for field in sorted(set(entry) - FIELDS[kind])
        ]
        faults += [f"{place}: {field} is missing" for field in sorted(NEEDED[kind] - set(entry))]
    schema = entry.get("schema_name")
    if kind in ("volumes", "registered_models") and schema not in _values(resources, "schemas", "name"):
        faults.append(f"{place}.schema_name: {schema!r} is no schema of this target: use ${{resources.schemas...}}")
    if kind == "experiments" and not str(entry.get("name", "")).startswith("/"):
        faults.append(f"{place}.name: {entry.get('name')!r} must be a path in the workspace, /Users/...")
    return faults


def _outside(content: dict) -> list[str]:
    """Faults of sections and variables."""
    faults = [f"{key}: no section of a bundle{_near(key, TOP)}" for key in content if key not in TOP]
    variables = content.get("variables", {})
    used = str([value for key, value in content.items() if key != "variables"]) + str(
        [entry.get("default") for entry in variables.values()]
    )
    for name, entry in variables.items():
        if not str(entry.get("description") or "").strip():
            faults.append(f"variables.{name}: no description")
        if f"${{var.{name}}}" not in used:
            faults.append(f"variables.{name}: nothing refers to it")
    return faults


def _mode(content: dict, target: str, resolved: dict, user: str) -> list[str]:
    """Faults of a target's mode: the CLI refuses these, or they overwrite another person's deployment."""
    own, faults = content["targets"][target] or {}, []
    place, mode, root = f"targets.{target}", own.get("mode"), resolved.get("workspace", {}).get("root_path", "")
    if mode not in (None, "development", "production"):
        faults.append(f"{place}.mode: {mode!r}{_near(mode, ('development', 'production'))}")
    if mode == "development" and root and user not in root and not root.startswith("~/"):
        faults.append(
            f"{place}.workspace.root_path: {root} is not below the user's own folder, which development mode requires"
        )
    if mode == "production":
        if not own.get("workspace", {}).get("root_path"):
            faults.append(f"{place}.workspace.root_path: production mode requires it, so that there is only one copy")
        identities = [value for value in resolved.get("run_as", {}).values() if value]
        if len(identities) != 1:
            faults.append(f"{place}.run_as: names {len(identities)} identities, and must name exactly one")
    return faults


def _job(place: str, job: dict, folder: Path) -> list[str]:
    """Faults of a job: tasks, their order and clusters, parameters and schedule."""
    tasks = {task.get("task_key"): task for task in job.get("tasks", [])}
    clusters = {cluster.get("job_cluster_key") for cluster in job.get("job_clusters", [])}
    faults = [f"{place}.tasks: two tasks have the same task_key"] if len(tasks) != len(job.get("tasks", [])) else []
    after = {
        key: [dependency.get("task_key") for dependency in task.get("depends_on", [])] for key, task in tasks.items()
    }
    for key, task in tasks.items():
        at = f"{place}.tasks[{key}]"
        faults += [
            f"{at}.depends_on: {other!r} is no task of this job{_near(other, tasks)}"
            for other in after[key]
            if other not in tasks
        ]
        if "job_cluster_key" in task and task["job_cluster_key"] not in clusters:
            cluster = task["job_cluster_key"]
            faults.append(f"{at}.job_cluster_key: {cluster!r} is none of job_clusters{_near(cluster, clusters)}")
        elif not {"job_cluster_key", "new_cluster", "existing_cluster_id", "environment_key"} & set(task):
            faults.append(f"{at}: has no job_cluster_key, so it would run on serverless compute, which has no Horovod")
        faults += [
            f"{at}.libraries: {library['requirements']} does not exist"
            for library in task.get("libraries", [])
            if isinstance(library, dict)
            and "requirements" in library
            and not (folder / library["requirements"]).is_file()
        ]
        faults += _notebook(at, job, task, folder)
    known = {key: [other for other in before if other in tasks] for key, before in after.items()}
    waiting = bundle.in_order(known)[1]
    if waiting:
        faults.append(f"{place}.tasks: {', '.join(map(str, waiting))} wait for each other")
    return faults + _parameters(place, job) + _schedule(place, job)


def _notebook(at: str, job: dict, task: dict, folder: Path) -> list[str]:
    """Faults between a task and its notebook: file, widgets, parameters."""
    if "notebook_task" not in task:
        return []
    path = task["notebook_task"].get("notebook_path", "")
    if not (folder / path).is_file():
        return [f"{at}.notebook_task.notebook_path: {path!r} does not exist"]
    base = task["notebook_task"].get("base_parameters") or {}
    faults = [
        f"{at}.notebook_task.base_parameters.{name}: {value!r} is no text; quote it"
        for name, value in base.items()
        if not isinstance(value, str)
    ]
    if base and job.get("parameters"):
        faults.append(f"{at}.notebook_task.base_parameters: a job with parameters of its own allows none in its tasks")
    given, read = set(bundle.parameters(job, task)), widgets(folder / path)
    faults += [
        f"{at}: {path} has no widget {name!r}, and would ignore the parameter{_near(name, read)}"
        for name in sorted(given - read)
    ]
    faults += [f"{at}: {path} has a widget {name!r} that no parameter fills" for name in sorted(read - given)]
    return faults


def widgets(path: str | Path) -> set[str]:
    """Names of the parameters that a notebook reads.

    workspace.configuration() reads all parameters; workspace.parameter() and dbutils.widgets read one.
    """
    names: set[str] = set()
    for call in (node for node in ast.walk(ast.parse(Path(path).read_text())) if isinstance(node, ast.Call)):
        called = ast.unparse(call.func)
        if called == "workspace.configuration":
            names |= set(workspace.parameters())
        elif (
            (called == "workspace.parameter" or called.startswith("dbutils.widgets."))
            and call.args
            and isinstance(call.args[0], ast.Constant)
        ):
            names.add(str(call.args[0].value))
    return names


def _parameters(place: str, job: dict) -> list[str]:
    """Faults of a job's parameters."""
    entries = job.get("parameters", [])
    names = [entry.get("name") for entry in entries]
    faults = [
        f"{place}.parameters: {name!r} is there twice"
        for name in sorted({str(name) for name in names if names.count(name) > 1})
    ]
    return faults + [
        f"{place}.parameters[{entry.get('name')}].default: {entry.get('default')!r} is no text; quote it"
        for entry in entries
        if not isinstance(entry.get("default"), str)
    ]


def _schedule(place: str, job: dict) -> list[str]:
    """Faults of a job's schedule and e-mails."""
    faults: list[str] = []
    schedule, mails = job.get("schedule"), job.get("email_notifications", {})
    if schedule is not None:
        wrong = quartz.fault(str(schedule.get("quartz_cron_expression", "")))
        faults += [f"{place}.schedule.quartz_cron_expression: {wrong}"] if wrong else []
        zone = schedule.get("timezone_id")
        if zone not in zoneinfo.available_timezones():
            faults.append(f"{place}.schedule.timezone_id: {zone!r} is no time zone" + _zone_hint(zone))
    for event, addresses in ((event, addresses) for event, addresses in mails.items() if isinstance(addresses, list)):
        faults += [
            f"{place}.email_notifications.{event}: {address!r} is no e-mail address"
            for address in addresses
            if "@" not in str(address) and "${" not in str(address)
        ]
    rules = [rule.get("metric") for rule in job.get("health", {}).get("rules", [])]
    if mails.get("on_duration_warning_threshold_exceeded") and "RUN_DURATION_SECONDS" not in rules:
        event = f"{place}.email_notifications.on_duration_warning_threshold_exceeded"
        faults.append(f"{event}: never sent without a health rule on RUN_DURATION_SECONDS")
    return faults


def _zone_hint(zone: object) -> str:
    near = difflib.get_close_matches(str(zone), zoneinfo.available_timezones(), 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else "; as in Europe/Berlin"


def _settings(place: str, job: dict, resources: dict) -> list[str]:
    """Faults of the settings that a job passes to its notebooks: unknown ones, and places outside the bundle."""
    defaults = {
        entry.get("name"): entry.get("default")
        for entry in job.get("parameters", [])
        if isinstance(entry.get("default"), str)
    }
    if not {"config", "place", "set"} <= set(defaults):
        return []
    try:
        words = {f"{place}.parameters[{name}]": defaults[name] for name in ("place", "set")}
        cfg = config.load(defaults["config"], words)
    except config.ConfigError as error:
        return [str(error) if place in str(error) else f"{place}.parameters: {error}"]
    made = {
        "storage.catalog": _values(resources, "schemas", "catalog_name"),
        "storage.schema": _values(resources, "schemas", "name"),
        **{f"storage.{name}": _volumes(resources) for name in ("root", "landing", "edge")},
        "storage.experiment": _values(resources, "experiments", "name"),
        "deploy.model": _values(resources, "registered_models", "name"),
    }
    flat = cfg.flat()
    return [
        f"{place}.parameters[place]: {name} is {flat[name]!r}, which this target does not make "
        f"(it makes {', '.join(sorted(known)) or 'none'}): refer to it by ${{resources...}}"
        for name, known in made.items()
        if flat[name] not in known
    ]


def _values(resources: dict, kind: str, field: str) -> set[str]:
    return {str(entry.get(field)) for entry in resources.get(kind, {}).values()}


def _volumes(resources: dict) -> set[str]:
    return {
        f"/Volumes/{entry.get('catalog_name')}/{entry.get('schema_name')}/{entry.get('name')}"
        for entry in resources.get("volumes", {}).values()
    }


def main(words: list[str]) -> int:
    """Prints the faults of a target. words: [target, variable=value, ...]. Returns 1 if there are faults, else 0."""
    target, *values = words or ["dev"]
    faults = check(bundle.read(), target, dict(value.partition("=")[::2] for value in values))
    print(*faults or [f"databricks.yml, target {target}: no fault found"], sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
