"""Models from a real MLflow server, by REST alone."""

import os
import subprocess
import sys

import bundles
import pytest
from servers import MLFLOW, Server, mlflow_server
from steps import ready, used


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """(port, function that registers a bundle's folder as the next version and points champion at it) of a real
    MLflow server.
    """
    root = tmp_path_factory.mktemp("mlflow")
    with mlflow_server(root / "mlflow.db", root / "artifacts", root / "log") as port:

        def register(folder):
            done = subprocess.run(
                [sys.executable, "-c", REGISTER, f"http://127.0.0.1:{port}", str(folder)],
                capture_output=True,
                text=True,
                env={**os.environ, **MLFLOW},
            )
            assert done.returncode == 0, done.stderr[-3000:]

        yield port, register


REGISTER = """
import sys, mlflow
from mlflow.tracking import MlflowClient
mlflow.set_tracking_uri(sys.argv[1])
mlflow.set_experiment("edge")
class Echo(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input):
        return model_input
with mlflow.start_run():
    info = mlflow.pyfunc.log_model(
        name="model", python_model=Echo(), pip_requirements=["mlflow"], registered_model_name="lakevision"
    )
client = MlflowClient()
client.log_model_artifacts(info.model_id, sys.argv[2], f"edge/{info.registered_model_version}")
client.set_registered_model_alias("lakevision", "champion", info.registered_model_version)
"""


def test_model_from_a_real_mlflow_server(scoring, registry):
    """By alias over its REST, artifacts below edge/, as 04_deploy logs them."""
    port, register = registry
    scoring.configure(
        model={"url": f"mlflow+http://127.0.0.1:{port}", "name": "lakevision"},
        store={"allow_http": True},
        upload={"timeout_s": 60.0},
    )
    done = scoring.run("sync", check=False)
    assert done.returncode == 75 and "has no lakevision@champion yet" in done.stderr
    register(scoring.place / "versions" / "1")
    ready(scoring)
    assert used(scoring) == ("1", ["empty", "package"])
    assert "nothing new" in scoring.run("sync").stdout
    bundles.publish(scoring.models, scoring.place, "2", "other")
    register(scoring.place / "versions" / "2")
    part = scoring.model / "b" / "float32.tflite.part"
    whole = (scoring.place / "versions" / "2" / "float32.tflite").read_bytes()
    cut = """
import device.model.mlflow_source as m, device.model.source as s, device.store.types as t
real = m.open_mlflow
def broken(*a):
    opened = real(*a)
    def read(path, offset):
        data = b"".join(opened.read(path, offset))
        yield data if "manifest" in path else data[:700]
        if "manifest" not in path:
            raise t.Unavailable("cut")
    return s.Source(opened.name, opened.look, read)
m.open_mlflow = broken
"""
    assert scoring.run("sync", check=False, driver=cut).returncode == 75 and part.stat().st_size == 700
    scoring.run("sync")
    assert (scoring.model / "b" / "float32.tflite").read_bytes() == whole, "the rest by Range"
    assert used(scoring) == ("2", ["package", "empty"])


def test_plain_http_needs_allow_http(scoring):
    scoring.configure(model={"url": "mlflow+http://127.0.0.1:9", "name": "lakevision"})
    done = scoring.run("sync", check=False)
    assert done.returncode == 77 and "allow_http" in done.stderr


def test_redirect_does_not_carry_the_login(scoring, monkeypatch):
    """MLflow behind a gateway that sends elsewhere: the other place gets the request without our credentials."""
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "tok-123456")
    seen = {}

    def thief(method, path, query, headers, body):
        seen["thief"] = headers.get("Authorization")
        return 200, b"{}"

    with Server(thief) as elsewhere:

        def gateway(method, path, query, headers, body):
            seen["gateway"] = headers.get("Authorization")
            return 302, b"", ("Location", f"http://127.0.0.1:{elsewhere.port}{path}")

        with Server(gateway) as server:
            scoring.configure(model={"url": f"mlflow+http://127.0.0.1:{server.port}"}, store={"allow_http": True})
            assert scoring.run("sync", check=False).returncode == 75
    assert seen == {"gateway": "Bearer tok-123456", "thief": None}
