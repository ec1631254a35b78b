"""The Databricks serving endpoint: MLflow's client against a local server with the API of a workspace."""

import base64
import json

import pytest
from servers import Server

from lakevision.platform import config
from lakevision.serving import endpoint


class Workspace:
    """The serving endpoints of a workspace.

    looks: GETs until an update ends; becomes: state after an update; asleep: requests that fail while the endpoint
    starts.
    """

    def __init__(self, looks=3, becomes="NOT_UPDATING", asleep=1):
        self.looks, self.becomes, self.asleep = looks, becomes, asleep
        self.endpoints, self.calls, self.left = {}, [], 0
        self.prediction = {"label": "empty", "probability": 0.9, "scores": [0.9, 0.1], "error": None}

    def answer(self, method, path, query, headers, body):
        if headers["Authorization"] != "Bearer dapi-good":
            return 403, b'{"error_code":"PERMISSION_DENIED","message":"bad token"}'
        payload = json.loads(body) if body else {}
        self.calls.append((method, path))
        name = path.removesuffix("/invocations").removesuffix("/config").rpartition("/")[2]
        if path == "/api/2.0/serving-endpoints" or path == "/api/2.0/serving-endpoints/":
            name = payload["name"]
            state = {"ready": "NOT_READY", "config_update": "IN_PROGRESS"}
            self.endpoints[name] = {"name": name, "state": state, "pending_config": payload["config"]}
            self.left = self.looks
            return 200, json.dumps(self.endpoints[name]).encode()
        if name not in self.endpoints:
            return 404, b'{"error_code":"RESOURCE_DOES_NOT_EXIST","message":"no such endpoint"}'
        found = self.endpoints[name]
        if path.endswith("/invocations"):
            assert base64.b64decode(payload["dataframe_split"]["data"][0][0])[:2] == b"\xff\xd8"
            self.asleep -= 1
            return (
                (503, b'{"message":"waking"}')
                if self.asleep >= 0
                else (200, json.dumps({"predictions": [self.prediction]}).encode())
            )
        if path.endswith("/config"):
            if found["state"]["config_update"] == "IN_PROGRESS":
                return 409, b'{"error_code":"RESOURCE_CONFLICT","message":"an update is in progress"}'
            found["state"]["config_update"], found["pending_config"], self.left = "IN_PROGRESS", payload, self.looks
        else:
            self.left -= 1
            if self.left <= 0 and found["state"]["config_update"] == "IN_PROGRESS":
                pending = found.pop("pending_config")
                found["state"]["config_update"] = self.becomes
                if self.becomes == "NOT_UPDATING":
                    found["state"]["ready"], found["config"] = "READY", pending
        return 200, json.dumps(found).encode()


@pytest.fixture
def deploy(monkeypatch):
    """Runs endpoint.deploy against a Workspace: (workspace, version, settings) -> (prediction, lines of progress)."""

    def run(workspace, version, *settings):
        cfg = config.load("local", ["storage.catalog=main", *settings])
        lines = []
        with Server(workspace.answer) as server:
            monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.port}")
            monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
            monkeypatch.setenv("MLFLOW_DEPLOYMENT_PREDICT_TOTAL_TIMEOUT", "1")
            monkeypatch.setenv("MLFLOW_DEPLOYMENT_PREDICT_TIMEOUT", "1")
            return endpoint.deploy(cfg, version, lines.append, pause=0.02), lines

    return run


def test_endpoint_is_created_updated_and_then_only_tested(deploy):
    workspace = Workspace()
    answer, lines = deploy(workspace, 3)
    assert answer == workspace.prediction and lines[0] == "endpoint lakevision: created, with version 3"
    assert "NOT_READY" in lines[1] and lines[-1] == "endpoint lakevision: answers, version 3"
    entity = {
        "entity_name": "main.lakevision.lakevision",
        "entity_version": "3",
        "workload_size": "Small",
        "scale_to_zero_enabled": True,
    }
    assert workspace.endpoints["lakevision"]["config"]["served_entities"] == [entity]

    deploy(workspace, "4", "serve.scale_to_zero=false")
    assert workspace.endpoints["lakevision"]["config"]["served_entities"] == [
        {**entity, "entity_version": "4", "scale_to_zero_enabled": False}
    ]
    workspace.calls.clear()
    deploy(workspace, "4", "serve.scale_to_zero=false")
    assert not any(method == "PUT" or path.endswith("endpoints") for method, path in workspace.calls)


def test_update_waits_for_the_update_in_progress(deploy):
    workspace = Workspace()
    deploy(workspace, 1)
    workspace.endpoints["lakevision"]["state"]["config_update"] = "IN_PROGRESS"
    workspace.endpoints["lakevision"]["pending_config"] = {"served_entities": []}
    workspace.left = 4
    deploy(workspace, 2)
    assert workspace.endpoints["lakevision"]["config"]["served_entities"][0]["entity_version"] == "2"


@pytest.mark.parametrize(
    "workspace, settings, words",
    [
        (Workspace(becomes="UPDATE_FAILED"), (), "does not take version 7: NOT_READY, UPDATE_FAILED"),
        (
            Workspace(looks=10**6),
            ("serve.endpoint_minutes=0.01",),
            "not ready within serve.endpoint_minutes: NOT_READY, IN_PROGRESS",
        ),
        (Workspace(asleep=10**6), ("serve.endpoint_minutes=0.01",), "is ready and does not answer"),
    ],
    ids=["update failed", "never ready", "never awake"],
)
def test_endpoint_that_does_not_serve_raises_with_the_reason(deploy, workspace, settings, words):
    with pytest.raises(endpoint.NotServing, match=words):
        deploy(workspace, 7, *settings)


def test_failed_update_raises_though_the_old_version_serves(deploy):
    workspace = Workspace()
    deploy(workspace, 1)
    workspace.becomes = "UPDATE_FAILED"
    with pytest.raises(endpoint.NotServing, match="does not take version 2: READY, UPDATE_FAILED"):
        deploy(workspace, 2)


def test_error_in_prediction_and_refused_request_raise(deploy):
    workspace = Workspace()
    workspace.prediction = {"label": None, "error": "damaged"}
    with pytest.raises(endpoint.NotServing, match="can't read a picture: damaged"):
        deploy(workspace, 1)
    workspace.answer = lambda *_: (403, b'{"error_code":"PERMISSION_DENIED","message":"not you"}')
    with pytest.raises(endpoint.NotServing, match="403"):
        deploy(workspace, 1)
