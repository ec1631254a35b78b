"""Checks the runtime: Databricks Runtime 15.4 LTS ML in dedicated mode, or Python 3.11 and Java.

Spark 3.5 needs Java 8, 11 or 17. differences() lists installed versions that differ from the pins.
"""

import functools
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
BUILT_IN = ("pyspark", "delta-spark")  # Databricks has its own builds, which pip does not list
DEDICATED = ("SINGLE_USER", "DATA_SECURITY_MODE_DEDICATED")
REMEDY = "use the bundle's jobs (databricks.yml), or a cluster of runtime 15.4 LTS ML with dedicated access mode"


class Unfit(RuntimeError):
    """The notebooks cannot run here. The message names the fault and the remedy."""


@dataclass(frozen=True)
class Runtime:
    """The versions of the machine or cluster.

    java: the major version; 0 if Java is missing, and on Databricks.
    databricks: DATABRICKS_RUNTIME_VERSION, "" elsewhere.
    image: the cluster's spark_version, as in 15.4.x-cpu-ml-scala2.12; "" if Databricks does not publish it.
    mode: the cluster's data_security_mode; "" if Databricks does not publish it.
    """

    python: str
    java: int = 0
    databricks: str = ""
    image: str = ""
    mode: str = ""

    def in_words(self) -> str:
        """One phrase for the first line of a notebook's output."""
        if not self.databricks:
            return f"Python {self.python}, Java {self.java}"
        image, mode = self.image or self.databricks, self.mode or "unknown"
        return f"Databricks Runtime {image}, access mode {mode}, Python {self.python}"


def here(on_databricks: bool) -> Runtime:
    """The Runtime of this process."""
    python = platform.python_version()
    if not on_databricks:
        return Runtime(python, java=_java())
    from pyspark.sql import SparkSession

    conf = SparkSession.builder.getOrCreate().conf
    # Clusters have these tags, but no documentation promises them: a missing tag is not a fault.
    return Runtime(
        python,
        databricks=os.environ["DATABRICKS_RUNTIME_VERSION"],
        image=conf.get("spark.databricks.clusterUsageTags.sparkVersion", ""),
        mode=conf.get("spark.databricks.clusterUsageTags.dataSecurityMode", ""),
    )


def _java() -> int:
    try:
        output = subprocess.run(["java", "-version"], capture_output=True, text=True).stderr
    except FileNotFoundError:
        return 0
    match = re.search(r'version "(?:1\.)?(\d+)', output)
    return int(match[1]) if match else 0


def demand(current: Runtime) -> None:
    """Raises Unfit if a Runtime cannot run the notebooks."""
    faults = _databricks_faults(current) if current.databricks else _local_faults(current)
    if faults:
        raise Unfit("; ".join(faults))


def _databricks_faults(current: Runtime) -> list[str]:
    number = re.match(r"(\d+)\.(\d+)", current.databricks)
    if not number:
        return [f"runtime {current.databricks} is serverless compute, which has no Horovod and no RDDs: {REMEDY}"]
    faults = []
    if (int(number[1]), int(number[2])) > (15, 4):
        faults.append(
            f"Databricks Runtime {current.databricks} no longer has Horovod "
            f"(15.4 LTS ML is the last with it; Hyperopt is missing from 17 on): {REMEDY}"
        )
    elif (int(number[1]), int(number[2])) < (15, 4):
        faults.append(f"Databricks Runtime {current.databricks} is older than these versions: {REMEDY}")
    if current.image and "-ml-" not in current.image:
        faults.append(f"{current.image} is not an ML runtime: TensorFlow, Horovod and Hyperopt are missing: {REMEDY}")
    if current.mode and current.mode not in DEDICATED:
        faults.append(
            f"access mode {current.mode} is not dedicated (SINGLE_USER), "
            f"so Horovod and Spark's RDDs are not allowed: {REMEDY}"
        )
    return faults


def _local_faults(current: Runtime) -> list[str]:
    faults = []
    if not current.python.startswith("3.11."):
        faults.append(
            f"Python is {current.python}, but the pinned versions need 3.11: bash config/setup.sh makes .venv with it"
        )
    if current.java not in (8, 11, 17):
        faults.append(
            f"Spark 3.5 needs Java 17 (8 and 11 work too), but 'java' here is {current.java or 'missing'}: "
            "bash config/setup.sh installs it"
        )
    return faults


@functools.cache
def petastorm_reads() -> bool:
    """True if petastorm is installed with a pyarrow that it can use: below 15."""
    pyarrow = _version("pyarrow") or ""
    return bool(_version("petastorm")) and int(pyarrow.partition(".")[0] or 99) < 15


def pins(text: str) -> dict[str, str]:
    """{package: version} of the lines of a requirements file that pin a version with ==, without markers and extras."""
    lines = [line.split("#")[0].split(";")[0].strip() for line in text.splitlines()]
    return {
        name.partition("[")[0].strip(): number.strip()
        for name, equals, number in (line.partition("==") for line in lines)
        if equals
    }


def differences(requirements: str, on_databricks: bool) -> list[str]:
    """The versions that differ from the pins in a requirements file's text: ["keras 3.4.0 (pinned: 3.3.3)", ...]."""
    pinned, differing = pins(requirements), []
    for name in PACKAGES:
        if on_databricks and name in BUILT_IN:
            continue
        installed = _version(name)
        if name == "tensorflow-cpu":
            installed = installed or _version("tensorflow")  # the package's name in Databricks Runtime
        if installed != pinned[name]:
            differing.append(f"{name} {installed or 'absent'} (pinned: {pinned[name]})")
    return differing


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
