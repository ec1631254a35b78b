"""The ledger under concurrent decisions and without a registry: each decision is one row or none."""

import threading
from dataclasses import replace

import pytest

from lakevision.release import gate, ledger, promotions

pytestmark = pytest.mark.spark
YES = gate.Decision(True, "all checks passed", "", [gate.Check("evaluation", "good", "good", True)])


def rows(spark, places):
    return spark.table(places.table("promotions")).orderBy("number").collect()


def test_concurrent_decision_keeps_its_number(two, monkeypatch):
    """Another row takes the number before the decision is written: the decision takes the next, and neither is lost."""
    from delta.tables import DeltaTable

    spark, cfg, places = two
    for_name, between = DeltaTable.forName, []

    def meanwhile(*words):
        if not between:
            between.append("B")
            promotions.promote(spark, cfg, places, "2", "B", "between")
        return for_name(*words)

    monkeypatch.setattr(DeltaTable, "forName", meanwhile)
    promotions.promote(spark, cfg, places, "1", "A", "slower")
    assert [(row["number"], row["who"], row["previous"]) for row in rows(spark, places)] == [
        (1, "B", None),
        (2, "A", "2"),
    ]
    assert promotions.serving(cfg) == "1"


def test_gate_that_compared_with_another_champion_is_stale(two):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    with pytest.raises(promotions.Stale, match="version 1 serves, and version 2 was compared with none"):
        promotions.gated(spark, cfg, places, "2", YES, "")
    assert promotions.serving(cfg) == "1" and len(rows(spark, places)) == 1


def test_simultaneous_promotions_are_rows_and_the_newest_serves(two):
    spark, cfg, places = two
    failed = []

    def decide(version):
        try:
            promotions.promote(spark, cfg, places, version, f"worker {version}", "at once")
        except Exception as error:  # asserted below: an exception in a thread is lost
            failed.append(error)

    for _ in range(2):
        threads = [threading.Thread(target=decide, args=(version,)) for version in "12"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed, failed
    written = rows(spark, places)
    assert [row["number"] for row in written] == [1, 2, 3, 4] and sorted(row["version"] for row in written) == [
        "1",
        "1",
        "2",
        "2",
    ]
    assert promotions.serving(cfg) == written[-1]["version"]


def test_nothing_is_decided_if_the_registry_is_down(two, monkeypatch):
    import mlflow

    spark, cfg, places = two
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    working = mlflow.get_tracking_uri()
    try:
        mlflow.set_tracking_uri("http://127.0.0.1:9")
        mlflow.set_registry_uri("http://127.0.0.1:9")
        with pytest.raises(promotions.RegistryDown, match="nothing was decided on version 1"):
            promotions.gated(spark, cfg, places, "1", YES, "")
    finally:
        mlflow.set_tracking_uri(working)
        mlflow.set_registry_uri(working)
    assert not rows(spark, places)


def test_decision_is_refused_if_others_always_come_first(two, monkeypatch):
    """Each time the decision has its number, another decision takes this number."""
    from delta.tables import DeltaTable

    spark, cfg, places = two
    for_name, names = DeltaTable.forName, iter(range(100))

    def late(*words):
        with monkeypatch.context() as patch:
            patch.setattr(DeltaTable, "forName", for_name)
            promotions.gated(spark, cfg, places, "2", replace(YES, reason=f"sooner {next(names)}"), None)
        return for_name(*words)

    monkeypatch.setattr(ledger, "TRIES", 2)
    monkeypatch.setattr(DeltaTable, "forName", late)
    with pytest.raises(promotions.NotPossible, match="2 other decisions came before it"):
        promotions.promote(spark, cfg, places, "1", "A. Person", "never")
    assert [row["reason"] for row in rows(spark, places)] == ["sooner 0", "sooner 1"] and promotions.serving(cfg) == "2"
