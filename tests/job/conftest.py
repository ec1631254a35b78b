"""Shared by the tests of the bundle: databricks.yml, and values for its variables."""

import copy

import pytest

from lakevision.job import bundle

VARIABLES = {
    "dev": {},
    "prod": {"service_principal": "0f5c6c5e-1111-2222-3333-444455556666", "notify": "ops@example.com"},
}


@pytest.fixture
def variables():
    """{target: values of the variables that it requires}."""
    return copy.deepcopy(VARIABLES)


@pytest.fixture
def content():
    """databricks.yml, to be changed by a test."""
    return copy.deepcopy(bundle.read())


@pytest.fixture(params=["dev", "prod"])
def resolved(request):
    """The bundle as each target deploys it."""
    return bundle.resolve(bundle.read(), request.param, VARIABLES[request.param])
