"""A Databricks workspace with a Unity Catalog model registry, as a server on loopback for MLflow's own client."""

import contextlib
import json

from servers import Server

from lakevision.platform import config

NAME = "lab.porch.lakevision"


class Catalog:
    """The registry of a workspace with one model.

    versions: {number: tags}; aliases: {alias: number}; made: False if no model is registered yet; logged: the metrics.
    Like Unity Catalog, the registry has no search by filter.
    """

    def __init__(self, made=True):
        self.made, self.versions, self.aliases, self.logged = made, {"1": {}, "2": {}}, {}, []

    def answer(self, method, path, query, headers, body):
        if headers["Authorization"] != "Bearer dapi-good":
            return 403, b'{"error_code":"PERMISSION_DENIED","message":"bad token"}'
        asked = {
            **{key: values[0] if isinstance(values, list) else values for key, values in dict(query or {}).items()},
            **(json.loads(body) if body else {}),
        }
        if path == "/api/2.0/mlflow/runs/log-metric":
            self.logged.append((asked["run_id"], asked["key"], asked["step"], asked["value"]))
            return 200, b"{}"
        place = path.removeprefix("/api/2.0/mlflow/unity-catalog/")
        if not self.made:
            return 404, json.dumps(
                {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Registered Model '{NAME}' does not exist."}
            ).encode()
        if place == "registered-models/alias" and method == "GET":
            if asked["alias"] not in self.aliases:
                return 404, json.dumps(
                    {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": f"Alias '{asked['alias']}' does not exist."}
                ).encode()
            return 200, self._version(self.aliases[asked["alias"]])
        if place == "registered-models/alias":
            self.aliases[asked["alias"]] = asked["version"]
            return 200, b"{}"
        if place == "registered-models/get":
            return 200, json.dumps({"registered_model": {"name": NAME}}).encode()
        if place == "model-versions/get":
            return 200, self._version(asked["version"])
        if place == "model-versions/set-tag":
            if len(asked["value"]) > 1000:
                return 400, b'{"error_code":"INVALID_PARAMETER_VALUE","message":"tag value longer than 1000"}'
            self.versions[asked["version"]][asked["key"]] = asked["value"]
            return 200, b"{}"
        return 500, json.dumps({"error_code": "INTERNAL_ERROR", "message": f"{method} {path} is not expected"}).encode()

    def _version(self, number):
        return json.dumps(
            {
                "model_version": {
                    "name": NAME,
                    "version": number,
                    "run_id": "r1",
                    "tags": [{"key": key, "value": value} for key, value in self.versions[number].items()],
                }
            }
        ).encode()


@contextlib.contextmanager
def connected(monkeypatch):
    """Yields a function (Catalog) -> Config of a lakehouse with this registry. Stops the servers at the end."""
    import mlflow

    with contextlib.ExitStack() as servers:

        def connect(catalog):
            server = servers.enter_context(Server(catalog.answer))
            monkeypatch.setenv("DATABRICKS_HOST", f"http://127.0.0.1:{server.port}")
            monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
            monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
            mlflow.set_tracking_uri("databricks")
            mlflow.set_registry_uri("databricks-uc")
            return config.load("local", ["storage.catalog=lab", "storage.schema=porch"])

        yield connect
