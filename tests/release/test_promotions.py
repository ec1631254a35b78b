"""The ledger: every decision a row, the alias follows, rollback, two at once, a registry that is down."""

import hashlib
import json
import re
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import rest_service  # noqa: E402

from lakevision.ingest import tables
from lakevision.registry import model_registry
from lakevision.release import cli as promotion_cli  # noqa: E402
from lakevision.release import edge_bundle, gate, ledger, promotions

YES = gate.Decision(True, "all checks passed", "", [gate.Check("evaluation", "good", "good", True)])
NO = gate.Decision(False, "no better than a baseline")
FORCED = gate.Decision(True, "promoted against the evaluation", "A. Person: a demonstration")


@pytest.fixture
def two(lakehouse, tmp_path):
    """(spark, cfg, where) of a registry with versions 1 and 2, none of them champion, and empty tables."""
    from mlflow import MlflowClient

    spark, make = lakehouse
    rest_service.registered(tmp_path)
    cfg, places = make()
    MlflowClient().delete_registered_model_alias(model_registry.name(cfg), "champion")
    tables.create(spark, places)
    return spark, cfg, places


def rows(spark, places):
    return spark.table(places.table("promotions")).orderBy("number").collect()


def test_the_gate_writes_down_what_it_decides_and_the_alias_follows(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    assert "no version of lakevision serves" in promotions.why(spark, cfg, places)
    assert promotions.gated(spark, cfg, places, "1", NO, "") == "challenger" and promotions.serving(cfg) == ""
    assert "version 1 was held back: no better than a baseline" in promotions.why(spark, cfg, places)
    assert promotions.gated(spark, cfg, places, "2", YES, "") == "champion" and promotions.serving(cfg) == "2"
    first, second = rows(spark, places)
    assert (
        first["number"],
        first["version"],
        first["promoted"],
        second["number"],
        second["version"],
        second["promoted"],
    ) == (1, "1", False, 2, "2", True)
    assert (
        second["who"].startswith("04_deploy, ")
        and second["run_id"]
        and '"found": "good"' in second["checks"]
        and not second["forced"]
    )
    tags = MlflowClient().get_model_version(model_registry.name(cfg), "2").tags
    assert (tags["promoted"], tags["reason"], tags["decision"]) == (
        "true",
        "all checks passed",
        "2",
    ) and "promoted_anyway" not in tags
    assert "version 2 of lakevision serves since" in promotions.why(
        spark, cfg, places
    ) and "against the gate" not in promotions.why(spark, cfg, places)


def test_a_forced_promotion_says_so_for_ever(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", FORCED, "")
    promotions.gated(spark, cfg, places, "2", YES, "1")
    assert promotions.rollback(spark, cfg, places, "", "B. Person", "it misses parcels") == "1"
    said = promotions.why(spark, cfg, places)
    assert (
        "version 1 of lakevision serves" in said and "by rollback of B. Person" in said and "it misses parcels" in said
    )
    assert (
        "promoted against the gate" in said
        and rows(spark, places)[-1]["forced"]
        and rows(spark, places)[-1]["previous"] == "2"
    )
    # By hand a version that passed its gate is not forced, one that never did is.
    promotions.promote(spark, cfg, places, "2", "B. Person", "again")
    assert not rows(spark, places)[-1]["forced"]
    promotions.promote(spark, cfg, places, "1", "C. Person", "a demonstration again")
    assert rows(spark, places)[-1]["forced"]
    tags = [
        MlflowClient().get_model_version(model_registry.name(cfg), version).tags.get("promoted_anyway")
        for version in "12"
    ]
    assert (
        re.fullmatch("04_deploy, .*: promoted against the evaluation; C. Person: a demonstration again", tags[0])
        and tags[1] is None
    )


def test_what_the_gate_found_broken_is_not_promoted_by_hand(two):
    spark, cfg, places = two
    apart, poor = (
        gate.Check("REST against Keras", "inf", "1e-05 at most", False),
        gate.Check("evaluation", "not evaluable", "good", False, True),
    )
    promotions.gated(spark, cfg, places, "1", gate.Decision(False, "apart", "", [poor, apart]), "")
    with pytest.raises(
        promotions.NotPossible, match="version 1 is broken, .*: REST against Keras: inf, wanted: 1e-05 at most"
    ):
        promotions.promote(spark, cfg, places, "1", "A. Person", "all the same")
    assert promotions.serving(cfg) == "" and len(rows(spark, places)) == 1
    promotions.gated(spark, cfg, places, "1", gate.Decision(False, "poor", "", [poor]), "")  # mended, and asked again
    promotions.promote(spark, cfg, places, "1", "A. Person", "all the same")
    assert promotions.serving(cfg) == "1" and rows(spark, places)[-1]["forced"]


def test_times_are_said_in_utc_wherever_the_machine_stands(two, monkeypatch):
    spark = two[0]
    monkeypatch.setenv("TZ", "America/New_York")
    time.tzset()
    try:
        assert f"{promotions._utc(spark.sql('SELECT current_timestamp()').first()[0]):%H:%M}" in {
            f"{datetime.now(UTC) - timedelta(minutes=ago):%H:%M}" for ago in (0, 1)
        }
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rollback_goes_back_one_by_one_and_to_champions_only(two):
    spark, cfg, places = two
    with pytest.raises(promotions.NotPossible, match="nothing before it"):
        promotions.rollback(spark, cfg, places, "", "A", "why")
    promotions.gated(spark, cfg, places, "1", YES, "")
    with pytest.raises(promotions.NotPossible, match=r"version 2 has never been champion \(1\)"):
        promotions.rollback(spark, cfg, places, "2", "A", "why")
    with pytest.raises(promotions.NotPossible, match="no version 9"):
        promotions.promote(spark, cfg, places, "9", "A", "why")
    assert promotions.serving(cfg) == "1" and len(rows(spark, places)) == 1


def test_rollback_returns_to_what_served_before_the_last_promotion_also_of_a_version_promoted_twice(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    client, name = MlflowClient(), model_registry.name(cfg)
    first = client.get_model_version(name, "1")
    assert str(client.create_model_version(name, first.source, first.run_id).version) == "3"
    for version in ("1", "3", "2", "3", "3"):
        promotions.promote(spark, cfg, places, version, "A", f"to {version}")
    assert [row["previous"] for row in rows(spark, places)] == [None, "1", "3", "2", "3"]
    assert promotions.rollback(spark, cfg, places, "", "A", "back") == "2" == promotions.serving(cfg)


def test_what_was_rolled_back_does_not_come_back_by_another_rollback(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    client, name = MlflowClient(), model_registry.name(cfg)
    first = client.get_model_version(name, "1")
    assert str(client.create_model_version(name, first.source, first.run_id).version) == "3"
    for version in "123":
        promotions.promote(spark, cfg, places, version, "A", f"to {version}")
    assert [promotions.rollback(spark, cfg, places, "", "A", "back") for _ in range(2)] == ["2", "1"]
    with pytest.raises(promotions.NotPossible, match="version 1 has nothing before it"):
        promotions.rollback(spark, cfg, places, "", "A", "back")
    model_registry.set_alias(cfg, "champion", "3")  # by hand
    assert promotions.rollback(spark, cfg, places, "", "A", "back") == "1"


def test_a_decision_that_came_between_keeps_its_number(two, monkeypatch):
    """Between the number that a decision takes and its row, another's row has that number: it takes the next, and neither is lost."""
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


def test_devices_are_pointed_at_the_champion_too(two):
    spark, cfg, places = two
    for version in "12":
        built = Path(places.root, f"built-{version}")
        built.mkdir()
        edge_bundle.seal(built, {"version": version, "model": model_registry.name(cfg)})
        edge_bundle.copy_sealed(built, places.edge, version)
        with pytest.raises(FileExistsError, match="has been published before"):
            edge_bundle.copy_sealed(built, places.edge, version)
    promotions.gated(spark, cfg, places, "2", YES, "")
    assert "devices keep" not in promotions.why(spark, cfg, places)
    assert '"versions/2"' in Path(places.edge, "champion.json").read_text()
    promotions.promote(spark, cfg, places, "1", "A", "why")
    pointer = json.loads(Path(places.edge, "champion.json").read_text())
    manifest = Path(places.edge, pointer["folder"], "manifest.json").read_bytes()
    assert pointer["folder"] == "versions/1" and (pointer["manifest_bytes"], pointer["manifest_sha256"]) == (
        len(manifest),
        hashlib.sha256(manifest).hexdigest(),
    )
    # A version without edge files, or another model's that lies in the same place: devices keep what they have, and that is said.
    there = Path(places.edge, "versions", "2", "manifest.json")
    there.write_text(there.read_text().replace(model_registry.name(cfg), "another"))
    for spoil in (lambda: None, there.unlink):
        spoil()
        promotions.promote(spark, cfg, places, "2", "A", "why")
        assert json.loads(Path(places.edge, "champion.json").read_text()) == pointer
        assert "devices keep their present version" in promotions.why(spark, cfg, places)


def test_a_gate_that_compared_with_another_champion_is_stale(two):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    with pytest.raises(promotions.Stale, match="version 1 serves, and version 2 was compared with none"):
        promotions.gated(spark, cfg, places, "2", YES, "")
    assert promotions.serving(cfg) == "1" and len(rows(spark, places)) == 1


def test_two_promotions_at_once_are_two_rows_and_the_newest_serves(two):
    spark, cfg, places = two
    failed = []

    def decide(version):
        try:
            promotions.promote(spark, cfg, places, version, f"worker {version}", "at once")
        except Exception as error:  # shown below: an exception in a thread is lost
            failed.append(error)

    for _ in range(2):
        threads = [threading.Thread(target=decide, args=(version,)) for version in "12"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not failed, failed
    found = rows(spark, places)
    assert [row["number"] for row in found] == [1, 2, 3, 4] and sorted(row["version"] for row in found) == [
        "1",
        "1",
        "2",
        "2",
    ]
    assert promotions.serving(cfg) == found[-1]["version"]


def test_an_alias_moved_by_hand_is_noticed_and_settled(two):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    model_registry.set_alias(cfg, "champion", "2")
    assert "version 2 of lakevision is champion, but the newest promotion names 1" in promotions.why(spark, cfg, places)
    assert promotions.settle(spark, cfg, places) == "1" and promotions.serving(cfg) == "1"


def test_a_registry_that_is_down_is_said_and_nothing_is_decided(two, monkeypatch):
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


def test_a_registry_that_goes_down_between_the_row_and_the_alias_is_caught_up_with(two, monkeypatch):
    from mlflow.exceptions import MlflowException

    def gone(*_):
        raise MlflowException("connection refused")

    spark, cfg, places = two
    with monkeypatch.context() as patch:
        patch.setattr(model_registry, "set_alias", gone)
        with pytest.raises(
            promotions.RegistryDown,
            match="connection refused; decision 1 on version 1 is in `promotions`, but the alias was not moved: `settle`",
        ):
            promotions.gated(spark, cfg, places, "1", YES, "")
    assert promotions.serving(cfg) == "" and "a decision was interrupted" in promotions.why(spark, cfg, places)
    promotions.gated(spark, cfg, places, "2", NO, "")  # the next decision finishes nothing unless it promotes
    assert promotions.settle(spark, cfg, places) == "1" == promotions.serving(cfg)


def test_on_the_command_line(two, capsys, monkeypatch):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    assert promotion_cli.main(["promote", "2", "--who", "A. Person", "--because", "a try"], cfg) == 0
    assert "version 2 of lakevision serves" in capsys.readouterr().out
    assert promotion_cli.main(["rollback", "--who", "A. Person", "--because", "enough"], cfg) == 0
    assert "version 1 of lakevision serves" in capsys.readouterr().out
    assert promotion_cli.main(["list"], cfg) == 0
    assert capsys.readouterr().out.count("A. Person") == 2
    assert promotion_cli.main(["rollback", "7", "--because", "no"], cfg) == 1
    assert "version 7 has never been champion" in capsys.readouterr().err
    model_registry.set_alias(cfg, "champion", "2")
    assert promotion_cli.main(["why"], cfg) == 0
    assert "the alias was moved by hand" in capsys.readouterr().out
    assert promotion_cli.main(["settle"], cfg) == 0
    assert "champion: version 1" in capsys.readouterr().out and promotions.serving(cfg) == "1"
    for words, message in (
        (["promote", "2"], "needs --because"),
        (["promote", "--because", "a try"], "needs a version"),
        (["demote", "2"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as ended:
            promotion_cli.main(words, cfg)
        assert ended.value.code == 2 and message in capsys.readouterr().err
    nowhere = replace(
        cfg, storage=replace(cfg.storage, mlflow_uri="http://127.0.0.1:9", registry_uri="http://127.0.0.1:9")
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert promotion_cli.main(["rollback", "--because", "enough"], nowhere) == 1
    assert "the registry does not answer" in capsys.readouterr().err
    assert promotion_cli.main(["why", "--set", "training.epoch=3"]) == 2
    assert "is not a setting of training" in capsys.readouterr().err


def test_a_decision_that_others_always_come_before_is_not_made(two, monkeypatch):
    """Each time it has its number, another decision takes it."""
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
