"""A registry of two versions for each module of tests, and a REST service that serves the champion."""

import pytest
import rest_service


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """(Config, {number: pyfunc model}), see rest_service.registered()."""
    return rest_service.registered(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def service(request, registered, tmp_path_factory):
    """A running service with the settings SETTINGS of the test module. It must end cleanly, without a traceback."""
    settings = getattr(request.module, "SETTINGS", ())
    with rest_service.serving(registered[0], tmp_path_factory.mktemp("log") / "log", *settings) as running:
        yield running
    assert running.process.returncode == 0 and "Traceback" not in running.log()
