"""Runtimes that can run the notebooks, errors for those that cannot, and differences from the pinned versions."""

import os
import sys

import pytest

from lakevision.platform import runtime
from lakevision.platform.workspace import REPOSITORY

ML = {"databricks": "15.4", "image": "15.4.x-cpu-ml-scala2.12", "mode": "SINGLE_USER"}


@pytest.mark.parametrize(
    "fields, message",
    [
        pytest.param(
            {**ML, "databricks": "16.4", "image": "16.4.x-cpu-ml-scala2.12"},
            "no longer has Horovod (15.4 LTS ML is the last",
            id="too new",
        ),
        pytest.param(
            {**ML, "databricks": "14.3", "image": "14.3.x-cpu-ml-scala2.12"}, "is older than these", id="too old"
        ),
        pytest.param({**ML, "image": "15.4.x-scala2.12"}, "15.4.x-scala2.12 is not an ML runtime", id="no ML runtime"),
        pytest.param({**ML, "mode": "USER_ISOLATION"}, "access mode USER_ISOLATION is not dedicated", id="shared"),
        pytest.param(
            {**ML, "databricks": "client.2.5", "image": "", "mode": ""},
            "serverless compute, which has no Horovod",
            id="serverless",
        ),
        pytest.param(
            {"python": "3.12.4", "java": 17}, "Python is 3.12.4, but the pinned versions need 3.11", id="Python here"
        ),
        pytest.param({"java": 21}, "'java' here is 21", id="Java here"),
        pytest.param({"java": 0}, "'java' here is missing", id="no Java"),
    ],
)
def test_unfit_runtime_names_fault_and_remedy(fields, message):
    with pytest.raises(runtime.Unfit) as caught:
        runtime.demand(runtime.Runtime(**{"python": "3.11.0", **fields}))
    assert message in str(caught.value) and (
        "15.4 LTS ML" in str(caught.value) or "config/setup.sh" in str(caught.value)
    )


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param(ML, id="the bundle's cluster"),
        pytest.param(
            {**ML, "image": "15.4.x-gpu-ml-scala2.12", "mode": "DATA_SECURITY_MODE_DEDICATED"}, id="with GPUs"
        ),
        pytest.param({"databricks": "15.4"}, id="a cluster without tags"),
        pytest.param({"java": 11}, id="Java 11"),
    ],
)
def test_supported_runtime_passes(fields):
    runtime.demand(runtime.Runtime(**{"python": "3.11.0", **fields}))


@pytest.mark.spark
def test_on_databricks_the_cluster_tags_are_read(spark, monkeypatch):
    monkeypatch.setenv("DATABRICKS_RUNTIME_VERSION", "15.4")
    tags = "spark.databricks.clusterUsageTags"
    keys = {f"{tags}.sparkVersion": ML["image"], f"{tags}.dataSecurityMode": ML["mode"]}
    assert runtime.here(True).in_words().startswith("Databricks Runtime 15.4, access mode unknown")
    for key, value in keys.items():
        spark.conf.set(key, value)
    try:
        assert runtime.here(True) == runtime.Runtime(".".join(map(str, sys.version_info[:3])), **ML)
    finally:
        for key in keys:
            spark.conf.unset(key)


def test_differing_version_is_named():
    text = (REPOSITORY / "requirements.txt").read_text()
    assert runtime.differences(text, False) == []
    assert runtime.differences(
        text.replace("keras==3.3.3", "keras==3.4.0  # newer").replace("pyspark==3.5.0", "pyspark==3.5.1"), True
    ) == ["keras 3.3.3 (pinned: 3.4.0)"]


def test_missing_package_is_named_absent(monkeypatch):
    text = (REPOSITORY / "requirements.txt").read_text()
    installed = runtime._version
    monkeypatch.setattr(runtime, "_version", lambda name: None if name == "mlflow" else installed(name))
    assert runtime.differences(text, False) == [f"mlflow absent (pinned: {runtime.pins(text)['mlflow']})"]


def test_tensorflow_counts_by_its_name_on_databricks(monkeypatch):
    text = (REPOSITORY / "requirements.txt").read_text()
    versions = {**runtime.pins(text), "tensorflow": "2.16.1", "tensorflow-cpu": None}
    monkeypatch.setattr(runtime, "_version", versions.get)
    assert runtime.differences(text, True) == []


def test_pins_leave_out_markers_extras_and_ranges():
    assert runtime.pins("moto[server]==5.1.4\npicamera==1.13; platform_machine == 'armv7l'\n# x==1\ny<2") == {
        "moto": "5.1.4",
        "picamera": "1.13",
    }


@pytest.mark.parametrize(
    ("installed", "reads"),
    [
        ({"petastorm": "0.12.1", "pyarrow": "14.0.2"}, True),
        ({"petastorm": "0.12.1", "pyarrow": "15.0.0"}, False),
        ({"petastorm": "0.12.1", "pyarrow": "9.0.0"}, True),
        ({"pyarrow": "14.0.2"}, False),
        ({"petastorm": "0.12.1"}, False),
    ],
)
def test_petastorm_reads_with_old_pyarrow_only(monkeypatch, installed, reads):
    monkeypatch.setattr(runtime, "_version", installed.get)
    runtime.petastorm_reads.cache_clear()
    assert runtime.petastorm_reads() is reads
    runtime.petastorm_reads.cache_clear()


def test_java_version_is_read_or_zero(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert runtime.here(False).java == 0
    (tmp_path / "java").write_text("#!/bin/sh\necho 'java version \"1.8.0_301\"' >&2\n")
    os.chmod(tmp_path / "java", 0o755)
    assert runtime.here(False).java == 8
