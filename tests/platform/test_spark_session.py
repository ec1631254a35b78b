"""What a Spark session is told for each kind of master, and how long its slots are waited for."""

import types
from pathlib import Path

import pytest

from lakevision.platform import config, spark_session


def settings(master, *more):
    return spark_session.settings(config.load("local", [f"spark.master={master}", *more]), Path("warehouse"))


@pytest.fixture(autouse=True)
def environment(monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "2")
    monkeypatch.setenv("PYTHONWARNINGS", "ignore")


@pytest.mark.parametrize(
    "master, shipped",
    [
        ("local[2]", False),
        ("local-cluster[2,1,2048]", False),
        ("spark://host:7077", True),
        ("yarn", True),
        ("k8s://https://host:6443", True),
    ],
)
def test_deltas_jars_go_where_executors_may_lack_them(master, shipped):
    jars = settings(master).get("spark.jars", "")
    assert bool(jars) == shipped
    if shipped:
        paths = [Path(path) for path in jars.split(",")]
        assert all(path.is_file() for path in paths) and {path.name.rsplit("-", 1)[0] for path in paths} == {
            "delta-spark_2.12",
            "delta-storage",
        }


@pytest.mark.parametrize(
    "words, found",
    [
        pytest.param(["spark.executor.memory=4g"], {"spark.executor.memory": "4g"}, id="one"),
        pytest.param(
            ["spark.driver.extraJavaOptions=-Da=b"], {"spark.driver.extraJavaOptions": "-Da=b"}, id="a value with ="
        ),
    ],
)
def test_options_are_spark_settings(words, found):
    assert spark_session.options(words) == found


@pytest.mark.parametrize("word", ["spark.executor.memory", "executor.memory=4g", "=4g"])
def test_what_is_no_spark_setting_is_named(word):
    with pytest.raises(config.ConfigError, match="spark.options: '" + word):
        spark_session.options([word])


@pytest.mark.parametrize(
    "master, waited",
    [("local", False), ("local[2]", False), ("local-cluster[2,1,1024]", True), ("spark://host:7077", True)],
)
def test_slots_are_waited_for_where_executors_may_be_starting(monkeypatch, master, waited):
    """The context counts one slot more each time it is asked, as executors come in."""
    counts = iter(range(2, 100))

    class Context:
        defaultParallelism = property(lambda self: next(counts))

    monkeypatch.setattr(spark_session.time, "sleep", lambda seconds: None)
    Context.master = master
    assert spark_session.slots(types.SimpleNamespace(sparkContext=Context()), 4) == (4 if waited else 2)
