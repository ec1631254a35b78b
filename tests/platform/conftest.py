"""Databricks' widgets and secrets, imitated for the tests of workspace."""

import pytest

from lakevision.platform import workspace


class Widgets:
    """The part of Databricks' dbutils.widgets that notebooks use: a job's value outranks the default."""

    def __init__(self, **filled):
        self.filled, self.made = filled, {}

    def text(self, name, default):
        self.made[name] = default

    def get(self, name):
        return self.filled.get(name, self.made[name])


class Scopes:
    def get(self, scope, key):
        return {("lakevision", "client-secret"): "s3cr3t"}[scope, key]


class Dbutils:
    def __init__(self, **filled):
        self.widgets, self.secrets = Widgets(**filled), Scopes()


@pytest.fixture
def databricks(monkeypatch):
    """Pretends to be on Databricks, with a job's values in the widgets: databricks(config="dev") -> dbutils."""

    def fill(**filled):
        dbutils = Dbutils(**filled)
        monkeypatch.setattr(workspace, "on_databricks", lambda: True)
        monkeypatch.setattr(workspace, "_given", {})
        monkeypatch.setattr(workspace, "_notebook_global", {"dbutils": dbutils}.__getitem__)
        return dbutils

    return fill


@pytest.fixture
def given(monkeypatch):
    """set_parameters; the values are removed after the test."""
    monkeypatch.setattr(workspace, "_given", {})
    return workspace.set_parameters
