"""The settings of a Spark session for each kind of master, and the wait for its slots."""

import re
import types
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

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
def test_delta_jars_are_sent_to_other_machines_only(master, shipped):
    jars = settings(master).get("spark.jars", "")
    assert bool(jars) == shipped
    if shipped:
        paths = [Path(path) for path in jars.split(",")]
        assert all(path.is_file() for path in paths)
        assert {path.name.rsplit("-", 1)[0] for path in paths} == {"delta-spark_2.12", "delta-storage"}


@pytest.mark.parametrize(
    "words, expected",
    [
        pytest.param(["spark.executor.memory=4g"], {"spark.executor.memory": "4g"}, id="one"),
        pytest.param(
            ["spark.driver.extraJavaOptions=-Da=b"], {"spark.driver.extraJavaOptions": "-Da=b"}, id="a value with ="
        ),
    ],
)
def test_options_are_split_at_the_first_equals_sign(words, expected):
    assert spark_session.options(words) == expected


@pytest.mark.parametrize("word", ["spark.executor.memory", "executor.memory=4g", "=4g"])
def test_word_that_is_not_a_spark_setting_is_named(word):
    with pytest.raises(config.ConfigError, match=f"spark.options: '{word}' is not a Spark setting"):
        spark_session.options([word])


@pytest.mark.parametrize(
    "master, waits",
    [("local", False), ("local[2]", False), ("local-cluster[2,1,1024]", True), ("spark://host:7077", True)],
)
def test_slots_are_awaited_if_executors_may_be_starting(monkeypatch, master, waits):
    """The context reports one more slot at each call, as if executors were starting."""
    counts = iter(range(2, 100))

    class Context:
        defaultParallelism = property(lambda self: next(counts))

    monkeypatch.setattr(spark_session.time, "sleep", lambda seconds: None)
    Context.master = master
    assert spark_session.slots(types.SimpleNamespace(sparkContext=Context()), 4) == (4 if waits else 2)


def test_slots_are_not_awaited_beyond_the_limit(monkeypatch):
    clock = iter(range(0, 1000, 10))
    monkeypatch.setattr(spark_session.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr(spark_session.time, "sleep", lambda seconds: None)
    context = types.SimpleNamespace(master="yarn", defaultParallelism=1)
    assert spark_session.slots(types.SimpleNamespace(sparkContext=context), 4) == 1


def test_missing_delta_jars_name_the_remedy(monkeypatch, tmp_path):
    monkeypatch.setenv("SPARK_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="lacks Delta's jars .*: run config/setup.sh"):
        spark_session.jars()


def test_log_settings_are_a_file_of_the_library_without_spaces():
    java = settings("local[2]")["spark.driver.extraJavaOptions"]
    uri = re.search(r"-Dlog4j2.configurationFile=(file:///\S+)( |$)", java)[1]
    assert Path(url2pathname(urlparse(uri).path)) == spark_session.LOG4J and spark_session.LOG4J.is_file()


@pytest.mark.spark
def test_session_uses_our_log_settings_and_a_part_a_slot(spark):
    manager = spark.sparkContext._jvm.org.apache.logging.log4j.LogManager
    source = manager.getContext(False).getConfiguration().getConfigurationSource()
    assert Path(source.getLocation()) == spark_session.LOG4J
    assert spark.conf.get("spark.sql.shuffle.partitions") == str(spark_session.slots(spark))


@pytest.mark.spark
def test_workers_import_the_library_from_the_sent_zip(spark):
    origins = spark.sparkContext.range(2, numSlices=2).map(lambda _: __import__("lakevision").__file__).collect()
    assert all(re.search(r"lakevision_library_\w{16}\.zip/lakevision/__init__.py$", path) for path in origins)
