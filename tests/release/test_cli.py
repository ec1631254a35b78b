"""The command line of promotions: each command, its messages and its exit status."""

from dataclasses import replace

import pytest

from lakevision.registry import model_registry
from lakevision.release import cli, gate, promotions

pytestmark = pytest.mark.spark
YES = gate.Decision(True, "all checks passed", "", [gate.Check("evaluation", "good", "good", True)])


def test_commands_decide_and_exit_with_their_status(two, capsys, monkeypatch):
    spark, cfg, places = two
    promotions.gated(spark, cfg, places, "1", YES, "")
    assert cli.main(["promote", "2", "--who", "A. Person", "--because", "a try"], cfg) == 0
    assert "version 2 of lakevision serves" in capsys.readouterr().out
    assert cli.main(["rollback", "--who", "A. Person", "--because", "enough"], cfg) == 0
    assert "version 1 of lakevision serves" in capsys.readouterr().out
    assert cli.main(["list"], cfg) == 0
    assert capsys.readouterr().out.count("A. Person") == 2
    assert cli.main(["rollback", "7", "--because", "no"], cfg) == 1
    assert "version 7 has never been champion" in capsys.readouterr().err
    model_registry.set_alias(cfg, "champion", "2")
    assert cli.main(["why"], cfg) == 0
    assert "the alias was moved by hand" in capsys.readouterr().out
    assert cli.main(["settle"], cfg) == 0
    assert "champion: version 1" in capsys.readouterr().out and promotions.serving(cfg) == "1"
    for words, message in (
        (["promote", "2"], "needs --because"),
        (["promote", "--because", "a try"], "needs a version"),
        (["demote", "2"], "invalid choice"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(words, cfg)
        assert ended.value.code == 2 and message in capsys.readouterr().err
    nowhere = replace(
        cfg, storage=replace(cfg.storage, mlflow_uri="http://127.0.0.1:9", registry_uri="http://127.0.0.1:9")
    )
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    assert cli.main(["rollback", "--because", "enough"], nowhere) == 1
    assert "the registry does not answer" in capsys.readouterr().err
    assert cli.main(["why", "--set", "training.epoch=3"]) == 2
    assert "is not a setting of training" in capsys.readouterr().err
