"""A version of the registered model behind a Databricks serving endpoint: made or updated, and waited for until it answers."""

import base64
import time

from lakevision.platform import workspace
from lakevision.registry import model_registry
from lakevision.serving.rest import loaded_model

FAILED = ("UPDATE_FAILED", "UPDATE_CANCELED")
GREY = base64.b64encode(loaded_model.grey()).decode()


class NotServing(RuntimeError):
    """The endpoint could not be made, or does not answer; the message says what Databricks says of it."""


def deploy(cfg, version, progress=print, pause=10.0):
    """Makes cfg.serve.endpoint_name serve a version, creating it where there is none, and waits until it answers a picture.

    version: number of the registered model's version; progress: told in words what changes; pause: seconds between looks. An endpoint that serves the
    version already is only asked. Returns the endpoint's answer, a dict of label, probability, scores, error. Raises NotServing, at the latest after
    cfg.serve.endpoint_minutes.
    """
    from mlflow.deployments import get_deploy_client

    client, name, deadline = (
        get_deploy_client("databricks"),
        cfg.serve.endpoint_name,
        time.monotonic() + 60 * cfg.serve.endpoint_minutes,
    )
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
    found = _found(client, name)
    if found is None:
        progress(f"endpoint {name}: created, with version {version}")
        _asked(name, lambda: client.create_endpoint(config={"name": name, "config": wanted}))
    elif not _serves(found, wanted):
        _settled(client, name, progress, deadline, pause)  # Databricks refuses an update while another one is under way
        progress(f"endpoint {name}: updated to version {version}")
        _asked(name, lambda: client.update_endpoint_config(name, config=wanted))
    found = _settled(client, name, progress, deadline, pause)
    if found["state"].get("config_update") in FAILED or not _serves(found, wanted):
        raise NotServing(
            f"endpoint {name} does not take version {version}: {_words(found)}; its page in the workspace has the build log"
        )
    answer = _answer(client, name, deadline, pause)
    progress(f"endpoint {name}: answers, version {version}")
    return answer


def follow(cfg, version):
    """On Databricks, where serve.endpoint_name is set: deploy(). Elsewhere there are no endpoints, and nothing is done."""
    if workspace.has_serving_endpoints() and cfg.serve.endpoint_name and version:
        deploy(cfg, version)


def _found(client, name):
    """What Databricks says of an endpoint, or None where there is none."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_endpoint(name)
    except (OSError, MlflowException) as error:
        if getattr(getattr(error, "response", None), "status_code", None) == 404:
            return None
        raise NotServing(f"endpoint {name}: {error}") from error


def _asked(name, request):
    from mlflow.exceptions import MlflowException

    try:
        request()
    except (OSError, MlflowException) as error:
        raise NotServing(f"endpoint {name}: {error}") from error


def _serves(found, wanted):
    """Whether an endpoint's active configuration is the wanted one; what Databricks adds to it does not count."""
    active = found.get("config", {}).get("served_entities", [])
    return len(active) == 1 and all(
        str(active[0].get(key)) == str(value) for key, value in wanted["served_entities"][0].items()
    )


def _settled(client, name, progress, deadline, pause):
    """What Databricks says of the endpoint once nothing is under way any more. Raises NotServing at the deadline."""
    said = ""
    while True:
        found = _found(client, name)
        if found is None:
            raise NotServing(f"endpoint {name} is gone: somebody has deleted it meanwhile")
        state = found["state"]
        if state.get("config_update") in FAILED or (
            state.get("ready") == "READY" and state.get("config_update") != "IN_PROGRESS"
        ):
            return found
        if _words(found) != said:
            said = _words(found)
            progress(f"endpoint {name}: {said}")
        if time.monotonic() > deadline:
            raise NotServing(f"endpoint {name} was not ready within serve.endpoint_minutes: {said}")
        time.sleep(pause)


def _words(found):
    """State of an endpoint and of what it is to serve, in Databricks' words."""
    entities = found.get("pending_config", found.get("config", {})).get("served_entities", [])
    details = [
        entity.get("state", {}).get("deployment_state_message") or entity.get("state", {}).get("deployment")
        for entity in entities
    ]
    return ", ".join(filter(None, [found["state"].get("ready"), found["state"].get("config_update"), *details]))


def _answer(client, name, deadline, pause):
    """What the endpoint says of a grey picture, as soon as it says anything: one that was scaled to zero wakes first."""
    from mlflow.exceptions import MlflowException

    while True:
        try:
            answer = client.predict(
                endpoint=name, inputs={"dataframe_split": {"columns": ["image"], "data": [[GREY]]}}
            )["predictions"][0]
        except (
            OSError,
            MlflowException,
        ) as error:  # requests' errors are OSErrors, and so is the TimeoutError that ends MLflow's own tries
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
