"""A registry in Unity Catalog, served on loopback."""

import pytest
from unity_catalog import connected


@pytest.fixture
def workspace_of(monkeypatch):
    """(Catalog) -> Config of a lakehouse with this registry."""
    with connected(monkeypatch) as connect:
        yield connect
