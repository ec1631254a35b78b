"""What the notebooks run on: Databricks Runtime 15.4 LTS ML in dedicated mode, or Python 3.11 and a Java that Spark takes? Which versions differ?"""

import os
import platform
import re
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

PACKAGES = (
    "pyspark",
    "delta-spark",
    "tensorflow-cpu",
    "keras",
    "petastorm",
    "hyperopt",
    "mlflow",
    "pyarrow",
    "numpy",
    "pillow",
    "obstore",
    "uvloop",
)
BUILT_IN = ("pyspark", "delta-spark")  # Databricks has its own, which pip does not know
DEDICATED = ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")
MAKE = "take the bundle's jobs (databricks.yml), or a cluster of runtime 15.4 LTS ML with dedicated access mode"


class Unfit(RuntimeError):
    """The notebooks can't run here; the message says what is wrong and what to take instead."""


@dataclass(frozen=True)
class Runtime:
    """databricks: DATABRICKS_RUNTIME_VERSION, "" elsewhere; image: the cluster's spark_version, as in 15.4.x-cpu-ml-scala2.12, and mode: its
    data_security_mode, both "" where Databricks does not tell; java: its major version, 0 where there is none, and on Databricks."""

    python: str
    java: int = 0
    databricks: str = ""
    image: str = ""
    mode: str = ""

    def in_words(self):
        if not self.databricks:
            return f"Python {self.python}, Java {self.java}"
        return f"Databricks Runtime {self.image or self.databricks}, access mode {self.mode or 'not told'}, Python {self.python}"


def here(on_databricks):
    """The Runtime of this process."""
    python = platform.python_version()
    if not on_databricks:
        return Runtime(python, java=_java())
    from pyspark.sql import SparkSession

    conf = SparkSession.builder.getOrCreate().conf
    # Clusters tell these about themselves, though no documentation promises it: where they are missing, nothing is concluded from it.
    return Runtime(
        python,
        databricks=os.environ["DATABRICKS_RUNTIME_VERSION"],
        image=conf.get("spark.databricks.clusterUsageTags.sparkVersion", ""),
        mode=conf.get("spark.databricks.clusterUsageTags.dataSecurityMode", ""),
    )


def _java():
    try:
        said = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    except FileNotFoundError:
        return 0
    found = re.search(r'version "(?:1\.)?(\d+)', said)
    return int(found[1]) if found else 0


def demand(found):
    """Raises Unfit where a Runtime can't run the notebooks."""
    faults = _databricks_faults(found) if found.databricks else _local_faults(found)
    if faults:
        raise Unfit("; ".join(faults))


def _databricks_faults(found):
    number = re.match(r"(\d+)\.(\d+)", found.databricks)
    if not number:
        return [f"runtime {found.databricks} is serverless compute, which has no Horovod and no RDDs: {MAKE}"]
    faults = []
    if (int(number[1]), int(number[2])) > (15, 4):
        faults.append(
            f"Databricks Runtime {found.databricks} has no Horovod any more (15.4 LTS ML is the last; from 17 on no Hyperopt): {MAKE}"
        )
    elif (int(number[1]), int(number[2])) < (15, 4):
        faults.append(f"Databricks Runtime {found.databricks} is older than these versions: {MAKE}")
    if found.image and "-ml-" not in found.image:
        faults.append(f"{found.image} is no ML runtime: TensorFlow, Horovod and Hyperopt are missing: {MAKE}")
    if found.mode and found.mode not in DEDICATED:
        faults.append(
            f"access mode {found.mode} is not dedicated (SINGLE_USER): Horovod and Spark's RDDs are not allowed in it: {MAKE}"
        )
    return faults


def _local_faults(found):
    faults = []
    if not found.python.startswith("3.11."):
        faults.append(
            f"Python is {found.python}, and the pinned versions need 3.11: bash config/setup.sh makes .venv with it"
        )
    if found.java not in (8, 11, 17):
        faults.append(
            f"Spark 3.5 needs Java 17 (8 and 11 work too), 'java' here is {found.java or 'missing'}: bash config/setup.sh gets it"
        )
    return faults


def pins(text):
    """{package: version} of the lines of a requirements file that pin one with ==; markers, extras and comments are left out."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in text.splitlines()]
    return {
        name.partition("[")[0].strip(): number.strip()
        for name, equals, number in (line.partition("==") for line in lines)
        if equals
    }


def differences(requirements, on_databricks):
    """What is installed in another version than a requirements file (its text) pins: ["keras 3.4.0 (pinned: 3.3.3)", ...]."""
    pinned, differing = pins(requirements), []
    for name in PACKAGES:
        if on_databricks and name in BUILT_IN:
            continue
        found = (
            _version(name) or (_version("tensorflow") if name == "tensorflow-cpu" else None) or "absent"
        )  # the runtime's is called tensorflow
        if found != pinned[name]:
            differing.append(f"{name} {found} (pinned: {pinned[name]})")
    return differing


def _version(name):
    try:
        return version(name)
    except PackageNotFoundError:
        return None
