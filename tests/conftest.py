"""Shared by all tests: the library on the path, and a lakehouse that has run the whole chain, small, once a session."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [
    str(REPOSITORY / "notebooks"),
    str(REPOSITORY),
    *(str(REPOSITORY / "tests" / name) for name in ("device", "serving", "data")),
]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
SMALL = ("capture.photographs=64", "tuning.trials=2", "tuning.epochs=2", "training.epochs=6")


# What a fixture brings along: tests that use one are marked, so that --quick leaves them out.
MARKS = {
    "spark": "spark",
    "lakehouse": "spark",
    "cached": "spark",
    "chain": "chain",
    "command": "chain",
    "moto": "service",
    "agent": "service",
    "models": "service",
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the groups
def pytest_collection_modifyitems(items):
    """Marks tests by their fixtures and their folder, and groups them for pytest-xdist.

    A file stays together, and so do the users of the one chain.
    """
    for item in items:
        used = set(getattr(item, "fixturenames", ()))
        for fixture in used & MARKS.keys():
            item.add_marker(MARKS[fixture])
        if item.path.parent.name == "chain":
            item.add_marker("chain")
        item.add_marker(pytest.mark.xdist_group("chain" if "chain" in used else str(item.path)))


@pytest.fixture(scope="module", autouse=True)
def mlflow_forgotten():
    """MLflow's addresses, and the environment that it hands to subprocesses, are the process's: no module leaves its
    own to the next.
    """
    yield
    if "mlflow" in sys.modules:
        from mlflow.tracking._model_registry import utils as registry
        from mlflow.tracking._tracking_service import utils as tracking

        tracking._tracking_uri = registry._registry_uri = None
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        os.environ.pop(name, None)


@pytest.fixture(scope="session")
def spark_config(tmp_path_factory):
    from lakevision.platform import config

    return config.load("local", [f"storage.root={tmp_path_factory.mktemp('lakehouse')}", *SMALL])


@pytest.fixture(scope="session")
def spark(spark_config):
    """One Spark session for all tests that need one; each makes a lakehouse of its own in it."""
    from lakevision.platform import workspace

    session = workspace.spark(spark_config)
    yield session
    session.stop()


@pytest.fixture
def lakehouse(spark, tmp_path, request):
    """(spark, a function from settings to (Config, Places)) with tables of its own, empty."""
    from lakevision.platform import config, workspace

    schema = (
        "test_" + "".join(character if character.isalnum() else "_" for character in request.node.name)[:60].lower()
    )

    def make(*settings):
        cfg = config.load("local", [f"storage.root={tmp_path}", f"storage.schema={schema}", *SMALL, *settings])
        return cfg, workspace.places(cfg)

    yield spark, make
    spark.sql(f"DROP SCHEMA IF EXISTS `{schema}` CASCADE")


@pytest.fixture(scope="session")
def command():
    """Runs notebooks/run.py as a user does: (arguments) -> CompletedProcess."""

    def run(*arguments, **more):
        return subprocess.run(
            [sys.executable, str(REPOSITORY / "notebooks" / "run.py"), *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=900,
            **more,
        )

    return run


@pytest.fixture(scope="session")
def chain_temporary(tmp_path_factory):
    """The temporary folder of the chain's processes."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="session")
def chain(command, chain_temporary, tmp_path_factory):
    """The whole chain on 64 simulated photographs, from the command line, once: (root of the lakehouse, summary,
    folder of the run).
    """
    root = tmp_path_factory.mktemp("chain")
    settings = [word for setting in (f"storage.root={root}", *SMALL) for word in ("--set", setting)]
    done = command(*settings, env={**os.environ, "TMPDIR": str(chain_temporary)})
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    page = next(line for line in done.stdout.splitlines() if line.startswith("page: "))
    folder = Path(page.removeprefix("page: ")).resolve().parent
    return root, json.loads((folder / "summary.json").read_text()), folder


@pytest.fixture(scope="session")
def cached(spark, tmp_path_factory):
    """(cfg, places, placements, Cache) of 64 simulated photographs."""
    from lakevision.dataset import cache, split, split_table
    from lakevision.ingest import capture, stream, tables
    from lakevision.platform import config, workspace

    cfg = config.load(
        "local",
        [
            f"storage.root={tmp_path_factory.mktemp('train')}",
            "storage.schema=test_training",
            "capture.photographs=64",
            "capture.size=96",
            "training.transform=decode|upright|rgb|resize(32)",
            "training.batch_size=8",
        ],
    )
    places = workspace.places(cfg)
    capture.land(cfg, places)
    stream.ingest(spark, cfg, places)
    version = tables.version(spark, places, "images")
    placements = split.used(split.assign(split_table.metadata(spark, places, version), cfg.split)[0])
    return cfg, places, placements, cache.build(spark, cfg, places, placements, version)


@pytest.fixture(scope="session")
def arrays(cached):
    from lakevision.dataset import feed, split

    return {side: feed.load(cached[3], side) for side in split.SPLIT_NAMES}


@pytest.fixture
def setting(cached):
    from lakevision.training import loop

    return replace(loop.first_setting(cached[0], cached[3]), epochs=2, width=4)


@pytest.fixture(scope="session")
def porch():
    """Draws simulated photographs small, not through files: (count, seed, shortcut, size, side) -> (metadata, pixels
    uint8 (count, side, side, 3)).
    """
    import numpy as np
    import pandas as pd

    from device.simulation import porch
    from lakevision.ingest import image_statistics

    def draw(count=160, seed=3, shortcut="", size=96, side=48):
        scenes = porch.plan(count, seed, (size, size))
        scenes = porch.spoilt(scenes, shortcut) if shortcut else scenes
        rows, pixels = [], []
        for scene in scenes:
            image, rng = porch.picture(scene), np.random.default_rng(scene.sequence)
            measured, phash = image_statistics.of(image)
            tags = {
                "ISOSpeedRatings": str(rng.choice([50, 100, 800])),
                "ExposureTime": f"1/{rng.integers(30, 400)}",
                "Model": "RP_OV5647",
            }
            rows.append(
                {
                    "path": porch.key(scene),
                    "sha256": f"{scene.sequence:016x}",
                    "label": porch.LABELS[scene.package],
                    "device": scene.camera,
                    "captured_at": pd.Timestamp(scene.taken_at).tz_convert(None),
                    "captured_from": "exif",
                    "width": size,
                    "height": size,
                    "exif": tags,
                    "brightness": measured["brightness"],
                    "phash": phash,
                }
            )
            pixels.append(np.asarray(image.resize((side, side), 2)))
        return pd.DataFrame(rows), np.stack(pixels)

    return draw
