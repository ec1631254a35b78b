"""Runs the REST service in a separate process on this machine while a block runs."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence

from lakevision.platform import workspace
from lakevision.registry import tracking

# Settings for 04_deploy's comparison. The other paths in the comparison have no such limits.
COMPARISON = (
    "serve.host=127.0.0.1",
    "serve.port=0",
    "serve.workers=1",
    "serve.max_request_mb=256",
    "serve.max_megapixels=120",
)
STOP_SECONDS = 30  # before the service is killed


class NoService(RuntimeError):
    """The REST service did not start. The message holds its exit status and the end of its error output."""


@contextlib.contextmanager
def service(places: workspace.Places, version: str, words: Sequence[str]) -> Iterator[str]:
    """Serves a version on a free port while the block runs. Yields the URL.

    places: where MLflow is; version: number of the version; words: settings (section.key=value) that name the
    registry, as from workspace.given(). Raises NoService.
    """
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            _command(version, words), stdout=subprocess.PIPE, stderr=errors, text=True, env=_environment(places)
        )
        try:
            for line in process.stdout or ():
                if address := re.search(r"http://[\d.]+:\d+", line):
                    yield address[0]
                    break
            else:
                errors.seek(0)
                raise NoService(
                    f"lakevision.serving.rest.main ended with status {process.wait()}: {errors.read()[-2000:]}"
                )
        finally:
            _stop(process)


def _command(version: str, words: Sequence[str]) -> list[str]:
    settings = [argument for setting in (*words, *COMPARISON) for argument in ("--set", setting)]
    module = [sys.executable, "-m", "lakevision.serving.rest.main"]
    return [*module, "--config", workspace.parameter("config"), "--version", str(version), *settings]


def _environment(places: workspace.Places) -> dict[str, str]:
    """Returns this process's environment with the library on PYTHONPATH and, on Databricks, the notebook's login."""
    return {
        **os.environ,
        **tracking.login_environment(places),
        "PYTHONPATH": os.pathsep.join([str(workspace.REPOSITORY / "notebooks"), str(workspace.REPOSITORY)]),
    }


def _stop(process: subprocess.Popen) -> None:
    """Ends the service. Kills it after STOP_SECONDS."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout:
        process.stdout.close()
