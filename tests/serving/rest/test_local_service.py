"""The REST service in a separate process: its login, its command, and what happens if it does not start or stop."""

import io
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from lakevision.serving.rest import local_service


def test_service_gets_the_notebooks_login_on_databricks_only(tmp_path, monkeypatch):
    """The login comes from a file, as a notebook's login is in no environment variable. sqlite needs no login."""
    import mlflow  # noqa: F401 - its import calls Popen, so import before Popen is replaced

    for name in ("DATABRICKS_HOST", "DATABRICKS_TOKEN", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "login").write_text("[DEFAULT]\nhost = https://lab.example\ntoken = dapi-good\n")
    monkeypatch.setenv("DATABRICKS_CONFIG_FILE", str(tmp_path / "login"))
    given = []

    class Started:
        def __init__(self, command, env, **_):
            given.append(env)
            self.stdout = io.StringIO()

        def wait(self, *_):
            return 1

        def terminate(self):
            pass

    monkeypatch.setattr(local_service.subprocess, "Popen", Started)
    for uri in ("databricks", "sqlite:///somewhere.db"):
        with (
            pytest.raises(local_service.NoService, match="status 1"),
            local_service.service(SimpleNamespace(mlflow_uri=uri), "1", []),
        ):
            pass
    more = [
        {name: value for name, value in env.items() if os.environ.get(name) != value and name != "PYTHONPATH"}
        for env in given
    ]
    assert more == [
        {
            "DATABRICKS_TOKEN": "dapi-good",
            "DATABRICKS_HOST": "https://lab.example",
            "MLFLOW_TRACKING_URI": "databricks",
        },
        {},
    ]


def run_instead(monkeypatch, program):
    """Makes service() run a Python program instead of the REST service."""
    monkeypatch.setattr(local_service, "_command", lambda version, words: [sys.executable, "-c", program])
    return local_service.service(SimpleNamespace(mlflow_uri="sqlite://"), "1", [])


def test_url_is_read_from_the_greeting_and_the_process_ends(monkeypatch, tmp_path):
    program = (
        "import os, pathlib, time; "
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(os.getpid())); "
        "print('loading', flush=True); print('version 1 at http://127.0.0.1:5077, 1 worker', flush=True); "
        "time.sleep(60)"
    )
    with run_instead(monkeypatch, program) as url:
        assert url == "http://127.0.0.1:5077"
        pid = int((tmp_path / "pid").read_text())
        os.kill(pid, 0)  # the process runs
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_failed_start_raises_with_status_and_error_output(monkeypatch):
    program = "import sys; print('serve: no version is champion', file=sys.stderr); sys.exit(1)"
    with (
        pytest.raises(local_service.NoService, match="ended with status 1: serve: no version is champion"),
        run_instead(monkeypatch, program),
    ):
        pass


def test_service_that_ignores_sigterm_is_killed(monkeypatch):
    monkeypatch.setattr(local_service, "STOP_SECONDS", 0.2)
    started = []

    class Recorded(subprocess.Popen):
        def __init__(self, *arguments, **options):
            super().__init__(*arguments, **options)
            started.append(self)

    monkeypatch.setattr(local_service.subprocess, "Popen", Recorded)
    program = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "print('at http://127.0.0.1:5077, ', flush=True); time.sleep(60)"
    )
    with run_instead(monkeypatch, program):
        pass
    assert started[0].returncode == -9


def test_command_serves_the_version_on_a_free_port():
    command = local_service._command("7", ["storage.root=/data"])
    settings = [command[place + 1] for place, word in enumerate(command) if word == "--set"]
    assert command[command.index("--version") + 1] == "7"
    assert settings == ["storage.root=/data", *local_service.COMPARISON] and "serve.port=0" in settings
