"""The registry by alias, in Unity Catalog: MLflow's own client against a server on loopback."""

import pytest
from unity_catalog import NAME, Catalog

from lakevision.registry import model_registry
from lakevision.release import promotions


def test_no_version_serves_before_the_first_deployment(workspace_of):
    assert model_registry.version_of(workspace_of(Catalog(made=False)), "champion") is None
    assert model_registry.version_of(workspace_of(Catalog()), "champion") is None


def test_alias_gives_the_serving_version(workspace_of):
    cfg = workspace_of(Catalog())
    model_registry.set_alias(cfg, "champion", "2")
    found = model_registry.version_of(cfg, "champion")
    assert (found.name, str(found.version), found.run_id) == (NAME, "2", "r1") and promotions.serving(cfg) == "2"
    assert model_registry.version_of(cfg, "challenger") is None


def test_refusing_or_wrong_registry_is_not_read_as_empty(workspace_of, monkeypatch):
    cfg = workspace_of(Catalog())
    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-bad")
    with pytest.raises(Exception, match="bad token"):
        model_registry.version_of(cfg, "champion")

    class Elsewhere(Catalog):
        def answer(self, *words):
            return 404, b"<html>no such page</html>"

    monkeypatch.setenv("DATABRICKS_TOKEN", "dapi-good")
    with pytest.raises(Exception, match="404"):
        model_registry.version_of(workspace_of(Elsewhere()), "champion")
