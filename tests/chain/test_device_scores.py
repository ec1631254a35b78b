"""The device fetches 04_deploy's model from MLflow or S3, and its scores equal the notebook's."""

import json
import shutil
import sqlite3
from pathlib import Path

import harness
import numpy as np
import pytest
import s3
from servers import mlflow_server
from steps import lines

pytestmark = [pytest.mark.chain, pytest.mark.service]
# Largest allowed difference of a variant's probabilities from the unconverted model. float32 rounds differently; the
# other two have less precise weights, with the bounds of test_edge_files.py.
FROM_KERAS = {"float32": 1e-5, "float16": 0.01, "int8": 0.2}


@pytest.fixture(scope="module")
def photographs(chain):
    """[(path in the landing zone, bytes)] of all photographs of the chain."""
    landing = chain[0] / "landing"
    return [(str(path.relative_to(landing)), path.read_bytes()) for path in sorted(landing.rglob("*.jpg"))]


@pytest.fixture(scope="module")
def pyfunc_scores(chain, photographs):
    """Probabilities of all photographs by MLflow's pyfunc of the registered version, float (64, classes)."""
    import mlflow
    import pandas as pd

    root, summary, _ = chain
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{root}/mlflow.db")  # an earlier test may have set another URI
    model = mlflow.pyfunc.load_model(f"models:/{summary['deploy']['model']}/{summary['deploy']['version']}")
    rows = model.predict(pd.DataFrame({"image": [data for _, data in photographs]}))
    assert rows["error"].isna().all()
    return np.array(rows["scores"].tolist())


@pytest.fixture
def device(chain, photographs, tmp_path, monkeypatch):
    """A device whose camera replays the chain's photographs. It follows the alias that the deployment set."""
    for name, value in {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": "test"}.items():
        monkeypatch.setenv(name, value)
    folder, shots = tmp_path / "device", tmp_path / "shots"
    shots.mkdir()
    for index, (_, data) in enumerate(photographs):
        (shots / f"{index:03d}.jpg").write_bytes(data)
    (folder / "landing").mkdir(parents=True)
    agent = harness.Agent(folder, shots)
    agent.model = folder / "model"
    agent.configure(
        camera={"loop": False},
        score={"enabled": True},
        store={"url": str(folder / "landing"), "region": "us-east-1", "allow_http": True},
        upload={"timeout_s": 60.0},
        model={"folder": str(agent.model), "name": chain[1]["deploy"]["model"], "alias": chain[1]["deploy"]["alias"]},
    )
    yield agent
    agent.stop_all()


@pytest.fixture(params=["MLflow server", "S3 server"])
def synced(request, chain, device, tmp_path):
    """The device after fetching the model by alias: from the chain's MLflow database over REST, or from S3."""
    root, summary, _ = chain
    if request.param == "S3 server":
        with s3.moto_server() as port:
            bucket = s3.Bucket.make(port, "edge")
            bucket.fill("edge", root / "edge")
            device.configure(model={"url": f"s3://{bucket.name}/edge"}, store={"endpoint": f"http://127.0.0.1:{port}"})
            device.run("sync")
    else:
        with mlflow_server(behind_a_server(root, tmp_path), root / "mlartifacts", tmp_path / "mlflow.log") as port:
            device.configure(model={"url": f"mlflow+http://127.0.0.1:{port}"})
            device.run("sync")
    device.run("score", "--once")
    assert json.loads((device.model / "active.json").read_text())["version"] == summary["deploy"]["version"]
    return device


def behind_a_server(root, folder):
    """A copy of the chain's MLflow database whose artifacts are reached through a server, not in a local folder."""
    database = folder / "mlflow.db"
    with sqlite3.connect(root / "mlflow.db") as source, sqlite3.connect(database) as copy:
        source.backup(copy)
        moved = copy.execute(
            "UPDATE model_versions SET storage_location = replace(storage_location, ?, 'mlflow-artifacts:/')",
            (f"file://{root}/mlartifacts/",),
        )
        assert moved.rowcount
    source.close()
    copy.close()
    return database


def scored_with(device, variant):
    """Result lines of all photographs, in order, by one variant. Without this, the processor decides on the variant."""
    path = device.model / json.loads((device.model / "active.json").read_text())["slot"] / "checked.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "variant": variant}))
    before = len(lines(device))
    device.run("capture")
    device.run("score", "--once")
    scored = lines(device)[before:]
    assert {line["variant"] for line in scored} == {variant} and not any(line["error"] for line in scored)
    return scored


def test_scores_equal_the_notebooks(synced, chain, photographs, pyfunc_scores):
    """Each variant scores all photographs as the same file does here, and as the pyfunc does within its precision."""
    from device.model import edge_model

    slot = synced.model / json.loads((synced.model / "active.json").read_text())["slot"]
    manifest = edge_model.read_manifest(slot)
    published = edge_model.folder(chain[0] / "edge", chain[1]["deploy"]["alias"])
    assert (slot / "manifest.json").read_bytes() == Path(published, "manifest.json").read_bytes()
    card = json.loads((slot / "checked.json").read_text())
    assert set(card["table"]) == set(FROM_KERAS) and not any(figures["failed"] for figures in card["table"].values())
    for variant in FROM_KERAS:
        scored = scored_with(synced, variant)
        assert len(scored) == len(photographs) and {line["digest"] for line in scored} == {card["digest"]}
        scores = np.array([line["scores"] for line in scored])
        here = edge_model.load(published, variant)
        same_file = np.array([edge_model.probabilities(here, data) for _, data in photographs])
        assert np.abs(scores - same_file).max() <= 1e-6, "the device and the file disagree"
        assert np.abs(scores - pyfunc_scores).max() <= FROM_KERAS[variant]
        assert card["table"][variant]["largest"] <= manifest["variants"][variant]["tolerance"]
        decided = [edge_model.decide(list(row), manifest["classes"], manifest["threshold"]) for row in scores]
        assert [line["label"] for line in scored] == decided


@pytest.mark.parametrize("synced", ["S3 server"], indirect=True)
def test_scores_equal_the_table_of_predictions(synced, chain, photographs, lakehouse):
    """05_score's own code writes the same scores in Spark, photograph by photograph."""
    import mlflow

    from lakevision.ingest import stream
    from lakevision.serving.spark import score

    root, summary, _ = chain
    spark, make = lakehouse
    cfg, places = make()
    shutil.copytree(root / "landing", places.landing, dirs_exist_ok=True)
    stream.ingest(spark, cfg, places)
    mlflow.set_tracking_uri(f"sqlite:///{root}/mlflow.db")
    mlflow.set_registry_uri(f"sqlite:///{root}/mlflow.db")  # an earlier test may have set another
    version = mlflow.MlflowClient().get_model_version(summary["deploy"]["model"], summary["deploy"]["version"])
    assert score.all_new(spark, cfg, places, version).images == len(photographs)
    rows = spark.table(places.table("predictions")).collect()
    predicted = {row.path.rpartition("/")[2]: row for row in rows}
    scored = scored_with(synced, "float32")
    assert len(scored) == len(predicted) == len(photographs)
    for line, (path, _) in zip(scored, photographs):
        row = predicted[path.rpartition("/")[2]]
        assert line["scores"] == pytest.approx(list(row.scores), abs=FROM_KERAS["float32"])
        assert line["label"] == row.label and line["version"] == row.version
