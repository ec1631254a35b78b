"""Which version serves: the gate's decision, promotion by hand, rollback, and the alias that follows."""

import hashlib
import json
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lakevision.registry import model_registry
from lakevision.release import edge_bundle, gate, promotions

pytestmark = pytest.mark.spark
YES = gate.Decision(True, "all checks passed", "", [gate.Check("evaluation", "good", "good", True)])
NO = gate.Decision(False, "no better than a baseline")
FORCED = gate.Decision(True, "promoted against the evaluation", "A. Person: a demonstration")


def rows(spark, places):
    return spark.table(places.table("promotions")).orderBy("number").collect()


def test_gate_decision_is_a_row_and_the_alias_follows(two):
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


def test_forced_promotion_stays_marked_for_ever(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", FORCED, "")
    promotions.gated(spark, cfg, places, "2", YES, "1")
    assert promotions.rollback(spark, cfg, places, "", "B. Person", "it misses parcels") == "1"
    text = promotions.why(spark, cfg, places)
    assert (
        "version 1 of lakevision serves" in text and "by rollback of B. Person" in text and "it misses parcels" in text
    )
    assert (
        "promoted against the gate" in text
        and rows(spark, places)[-1]["forced"]
        and rows(spark, places)[-1]["previous"] == "2"
    )
    # By hand: a version that has passed its gate is not forced, another is.
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


def test_version_with_a_technical_fault_can_not_be_forced(two):
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
    promotions.gated(
        spark, cfg, places, "1", gate.Decision(False, "poor", "", [poor]), ""
    )  # repaired, and judged again
    promotions.promote(spark, cfg, places, "1", "A. Person", "all the same")
    assert promotions.serving(cfg) == "1" and rows(spark, places)[-1]["forced"]


def test_times_are_utc_in_every_time_zone(two, monkeypatch):
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


def test_rollback_goes_to_former_champions_only(two):
    spark, cfg, places = two
    with pytest.raises(promotions.NotPossible, match="nothing before it"):
        promotions.rollback(spark, cfg, places, "", "A", "why")
    promotions.gated(spark, cfg, places, "1", YES, "")
    with pytest.raises(promotions.NotPossible, match=r"version 2 has never been champion \(1\)"):
        promotions.rollback(spark, cfg, places, "2", "A", "why")
    with pytest.raises(promotions.NotPossible, match="no version 9"):
        promotions.promote(spark, cfg, places, "9", "A", "why")
    assert promotions.serving(cfg) == "1" and len(rows(spark, places)) == 1


def test_rollback_after_promoting_twice_skips_the_repetition(two):
    from mlflow import MlflowClient

    spark, cfg, places = two
    client, name = MlflowClient(), model_registry.name(cfg)
    first = client.get_model_version(name, "1")
    assert str(client.create_model_version(name, first.source, first.run_id).version) == "3"
    for version in ("1", "3", "2", "3", "3"):
        promotions.promote(spark, cfg, places, version, "A", f"to {version}")
    assert [row["previous"] for row in rows(spark, places)] == [None, "1", "3", "2", "3"]
    assert promotions.rollback(spark, cfg, places, "", "A", "back") == "2" == promotions.serving(cfg)


def test_second_rollback_does_not_undo_the_first(two):
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


def test_devices_are_pointed_at_the_champion(two):
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
    # Devices keep their version if the champion has no edge files, or if the files belong to another model.
    manifest_file = Path(places.edge, "versions", "2", "manifest.json")
    manifest_file.write_text(manifest_file.read_text().replace(model_registry.name(cfg), "another"))
    for spoil in (lambda: None, manifest_file.unlink):
        spoil()
        promotions.promote(spark, cfg, places, "2", "A", "why")
        assert json.loads(Path(places.edge, "champion.json").read_text()) == pointer
        assert "devices keep their present version" in promotions.why(spark, cfg, places)


def test_alias_moved_by_hand_is_noticed_and_settled(two):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    model_registry.set_alias(cfg, "champion", "2")
    assert "version 2 of lakevision is champion, but the newest promotion names 1" in promotions.why(spark, cfg, places)
    assert promotions.settle(spark, cfg, places) == "1" and promotions.serving(cfg) == "1"


def test_settle_moves_the_alias_after_the_registry_was_down(two, monkeypatch):
    from mlflow.exceptions import MlflowException

    def gone(*_):
        raise MlflowException("connection refused")

    spark, cfg, places = two
    with monkeypatch.context() as patch:
        patch.setattr(model_registry, "set_alias", gone)
        with pytest.raises(
            promotions.RegistryDown,
            match="connection refused; decision 1 on version 1 is in `promotions`, "
            "but the alias was not moved: `settle`",
        ):
            promotions.gated(spark, cfg, places, "1", YES, "")
    assert promotions.serving(cfg) == "" and "a decision was interrupted" in promotions.why(spark, cfg, places)
    promotions.gated(spark, cfg, places, "2", NO, "")  # a decision that does not promote finishes nothing
    assert promotions.settle(spark, cfg, places) == "1" == promotions.serving(cfg)
