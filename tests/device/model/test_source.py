"""Where models come from: a real MLflow server, an S3 server, a Databricks workspace on loopback, a folder;
unreliable lines to each.
"""

import json
import os

import bundles
import pytest
import s3
from harness import until
from servers import Server, Workspace
from steps import ready, shots, used


@pytest.fixture
def over_s3(scoring, bucket, proxy):
    """The published folder in a bucket, behind a proxy that may misbehave; a function that uploads it."""
    scoring.configure(
        model={"url": f"s3://{bucket.name}/edge"},
        store={"endpoint": f"http://127.0.0.1:{proxy.port}", "region": "us-east-1", "allow_http": True},
    )

    def publish():
        bucket.fill("edge", scoring.place)

    publish()
    return publish


def test_model_from_s3(scoring, over_s3, proxy):
    ready(scoring)
    assert used(scoring) == ("1", ["empty", "package"])
    before = len(proxy.requests)
    assert "nothing new" in scoring.run("sync").stdout
    assert [path.rpartition("/")[2] for _, path in proxy.requests[before:]] == ["champion.json"], (
        "one small request when nothing is new"
    )
    assert proxy.conditions[before], 'and its answer is no more than "not modified"'
    bundles.publish(scoring.models, scoring.place, "2", "other")
    over_s3()
    scoring.run("sync")
    assert used(scoring) == ("2", ["package", "empty"])


def test_broken_line_resumes_each_file(scoring, over_s3, proxy):
    """Each answer is cut in half, the first time: what has come stays, and the next attempt asks for the rest only."""
    ready(scoring)
    bundles.publish(scoring.models, scoring.place, "2", "slow", variants=("float32",))
    over_s3()
    halved = set()
    size = (scoring.place / "versions" / "2" / "float32.tflite").stat().st_size

    def rule(_, path, number):
        if "/versions/2/" in path and path not in halved:
            halved.add(path)
            return "half"
        return "pass"

    proxy.rule = rule
    attempts, parts = 0, []
    while scoring.run("sync", check=False).returncode:
        attempts += 1
        parts += [path.stat().st_size for path in (scoring.model / "b").glob("float32.tflite.part")]
        assert used(scoring) == ("1", ["empty", "package"])
        assert attempts < 12
    assert attempts == len(halved) == 6 and 0 < parts[0] < size, "manifest, model and four photographs broke once each"
    ranges = [asked for path, asked in proxy.ranges if path.endswith("float32.tflite") and "/2/" in path]
    assert ranges[0] == "" and ranges[1].startswith(f"bytes={parts[0]}-") and len(ranges) == 2
    assert json.loads((scoring.model / "sync.json").read_text())["error"] == ""
    assert used(scoring)[0] == "2"


@pytest.mark.parametrize(
    "answer",
    [
        (403, s3.s3_error("AccessDenied")),
        (500, s3.s3_error("InternalError")),
        "reset",
        "silent",
        "dribble",
        (200, "<html>hotel</html>"),
        (404, s3.s3_error("NoSuchKey")),
    ],
    ids=str,
)
def test_store_trouble_is_retried(scoring, over_s3, proxy, answer):
    ready(scoring)
    bundles.publish(scoring.models, scoring.place, "2", "other")
    over_s3()
    proxy.rule = lambda *_: answer
    score = scoring.start("score")
    until(
        lambda: json.loads((scoring.model / "sync.json").read_text()).get("failures", 0) >= 2, "sync has failed twice"
    )
    shots(scoring, 30, 220)
    until(lambda: not list((scoring.spool / "unscored").iterdir()), "frames are scored meanwhile")
    assert "model 2" not in scoring.journal("score")
    proxy.rule = lambda *_: "pass"
    until(lambda: "model 2 (" in scoring.journal("score"), "the new version is taken when the store is well again")
    assert scoring.stop(score) == 0
    assert harness_secret() not in scoring.journal("score")


def harness_secret():
    return os.environ["AWS_SECRET_ACCESS_KEY"]


class Catalog(Workspace):
    """The workspace with a registered model main.lake.porch, whose champion is self.version; Files API with Range."""

    def __init__(self, place):
        super().__init__()
        self.place, self.version, self.ranges = place, "1", []

    def answer(self, method, path, query, headers, body):
        status, content, *more = (
            super().answer(method, path, query, headers, body) if not path.startswith("/api/2.1/") else (200, b"")
        )
        if headers.get("Authorization", "").partition(" ")[2] not in self.tokens and path != "/oidc/v1/token":
            return 401, b"{}"
        if path == "/api/2.1/unity-catalog/models/main.lake.porch/aliases/champion":
            return 200, json.dumps(
                {"name": "porch", "full_name": "main.lake.porch", "version": int(self.version)}
            ).encode()
        root = "/api/2.0/fs/files/Volumes/main/lake/landing/edge/"
        if method == "GET" and path.startswith(root):
            file = self.place / path[len(root) :]
            if not file.exists():
                return 404, b'{"error_code":"NOT_FOUND"}'
            data, asked = file.read_bytes(), headers.get("Range", "")
            self.ranges.append((path, asked))
            begin, end = (int(number) for number in asked[len("bytes=") :].split("-"))
            return (206, data[begin : end + 1]) if begin < len(data) else (416, b"")
        return status, content, *more


@pytest.mark.parametrize("way", ["registry", "pointer"])
def test_model_from_databricks(scoring, monkeypatch, way):
    """Unity Catalog's alias and the volume's files; or the volume alone, by its pointer."""
    monkeypatch.setenv("DATABRICKS_CLIENT_ID", "client-1")
    monkeypatch.setenv("DATABRICKS_CLIENT_SECRET", "client/secret")
    workspace = Catalog(scoring.place)
    with Server(workspace.answer) as server:
        scheme = "databricks" if way == "registry" else "volume"
        scoring.configure(
            model={"url": f"{scheme}://127.0.0.1:{server.port}/main/lake/landing/edge", "name": "main.lake.porch"},
            store={"allow_http": True},
        )
        ready(scoring)
        assert used(scoring) == ("1", ["empty", "package"])
        before = len(workspace.ranges)
        assert "nothing new" in scoring.run("sync").stdout and len(workspace.ranges) - before == (
            0 if way == "registry" else 1
        )
        bundles.publish(scoring.models, scoring.place, "2", "slow", variants=("float32",))
        workspace.version = "2"
        scoring.run("sync")
        assert used(scoring)[0] == "2"
        pieces = [asked for path, asked in workspace.ranges if path.endswith("2/float32.tflite")]
        assert pieces == ["bytes=0-262143", "bytes=262144-524287"], "347 kB come in two pieces"
    assert "client/secret" not in scoring.journal("sync")
