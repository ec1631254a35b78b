"""Deploys a version of the registered model to a Databricks serving endpoint and waits for a response."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable

from lakevision.platform import config, workspace
from lakevision.registry import model_registry
from lakevision.serving.rest import loaded_model

FAILED = ("UPDATE_FAILED", "UPDATE_CANCELED")
GREY = base64.b64encode(loaded_model.grey()).decode()


class NotServing(RuntimeError):
    """The endpoint could not be created, or does not respond. The message quotes Databricks."""


def deploy(cfg: config.Config, version: str, progress: Callable[[str], None] = print, pause: float = 10.0) -> dict:
    """Creates or updates the endpoint cfg.serve.endpoint_name, and waits until a picture is scored.

    version: number of the model's version; progress: receives a line for each change; pause: seconds between polls. An
    endpoint that already serves the version is only tested. Returns a dict of label, probability, scores, error. Raises
    NotServing, at the latest after cfg.serve.endpoint_minutes.
    """
    from mlflow.deployments import get_deploy_client

    client, name = get_deploy_client("databricks"), cfg.serve.endpoint_name
    deadline = time.monotonic() + 60 * cfg.serve.endpoint_minutes
    wanted = {
        "served_entities": [
            {
                "entity_name": model_registry.name(cfg),
                "entity_version": str(version),
                "workload_size": cfg.serve.workload_size,
                "scale_to_zero_enabled": cfg.serve.scale_to_zero,
            }
        ]
    }
    current = _description(client, name)
    if current is None:
        progress(f"endpoint {name}: created, with version {version}")
        _request(name, lambda: client.create_endpoint(config={"name": name, "config": wanted}))
    elif not _serves(current, wanted):
        _settled(client, name, progress, deadline, pause)  # Databricks refuses an update during another update
        progress(f"endpoint {name}: updated to version {version}")
        _request(name, lambda: client.update_endpoint_config(name, config=wanted))
    current = _settled(client, name, progress, deadline, pause)
    if current["state"].get("config_update") in FAILED or not _serves(current, wanted):
        raise NotServing(
            f"endpoint {name} does not take version {version}: {_words(current)}; "
            "its page in the workspace has the build log"
        )
    answer = _answer(client, name, deadline, pause)
    progress(f"endpoint {name}: answers, version {version}")
    return answer


def follow(cfg: config.Config, version: str) -> None:
    """Calls deploy() on Databricks if serve.endpoint_name is set. Elsewhere there are no endpoints."""
    if workspace.has_serving_endpoints() and cfg.serve.endpoint_name and version:
        deploy(cfg, version)


def _description(client, name):
    """Returns Databricks' description of an endpoint, or None if it does not exist."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_endpoint(name)
    except (OSError, MlflowException) as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            return None
        raise NotServing(f"endpoint {name}: {error}") from error


def _request(name, request):
    """Calls request(). Raises NotServing if the call fails."""
    from mlflow.exceptions import MlflowException

    try:
        request()
    except (OSError, MlflowException) as error:
        raise NotServing(f"endpoint {name}: {error}") from error


def _serves(current, wanted):
    """True if an endpoint's active configuration is the wanted one. Keys added by Databricks are ignored."""
    active = current.get("config", {}).get("served_entities", [])
    return len(active) == 1 and all(
        str(active[0].get(key)) == str(value) for key, value in wanted["served_entities"][0].items()
    )


def _settled(client, name, progress, deadline, pause):
    """Waits until no update is in progress. Returns the endpoint's description. Raises NotServing at the deadline."""
    last = ""
    while True:
        current = _description(client, name)
        if current is None:
            raise NotServing(f"endpoint {name} was deleted during the deployment")
        state = current["state"]
        if state.get("config_update") in FAILED or (
            state.get("ready") == "READY" and state.get("config_update") != "IN_PROGRESS"
        ):
            return current
        if _words(current) != last:
            last = _words(current)
            progress(f"endpoint {name}: {last}")
        if time.monotonic() > deadline:
            raise NotServing(f"endpoint {name} was not ready within serve.endpoint_minutes: {last}")
        time.sleep(pause)


def _words(current):
    """Returns Databricks' text for the state of an endpoint and its entities."""
    entities = current.get("pending_config", current.get("config", {})).get("served_entities", [])
    details = [
        entity.get("state", {}).get("deployment_state_message") or entity.get("state", {}).get("deployment")
        for entity in entities
    ]
    return ", ".join(filter(None, [current["state"].get("ready"), current["state"].get("config_update"), *details]))


def _answer(client, name, deadline, pause):
    """Scores a grey picture. Retries while an endpoint that was scaled to zero starts."""
    from mlflow.exceptions import MlflowException

    while True:
        try:
            answer = client.predict(
                endpoint=name, inputs={"dataframe_split": {"columns": ["image"], "data": [[GREY]]}}
            )["predictions"][0]
        # The errors of `requests` are OSErrors. MLflow's retries end with TimeoutError, which is an OSError, too.
        except (OSError, MlflowException) as error:
            status = getattr(getattr(error, "response", None), "status_code", None)
            if status is not None and status < 500 and status not in (404, 408, 429):
                raise NotServing(f"endpoint {name} refuses a picture: {error}") from error
            if time.monotonic() > deadline:
                raise NotServing(f"endpoint {name} is ready and does not answer: {error}") from error
            time.sleep(pause)
            continue
        if answer.get("error"):
            raise NotServing(f"endpoint {name} can't read a picture: {answer['error']}")
        return answer
