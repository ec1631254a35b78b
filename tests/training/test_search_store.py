"""Records of a search: locks, keys, and resumed searches."""

from dataclasses import replace
from pathlib import Path

import pytest

from lakevision.training import search_store


def test_same_search_cannot_run_twice_at_a_time(tmp_path):
    with search_store.opened(tmp_path, "key"):
        with pytest.raises(search_store.SearchRuns, match="tuning.seed"), search_store.opened(tmp_path, "key"):
            pass
        with search_store.opened(tmp_path, "another"):
            pass
    with search_store.opened(tmp_path, "key"):
        pass


def tuned(cfg, **tuning):
    return replace(cfg, tuning=replace(cfg.tuning, **tuning))


def test_key_changes_with_everything_that_decides(prepared):
    cfg, _, built, setting, _ = prepared
    name = search_store.key(cfg, built, setting)
    assert search_store.key(tuned(cfg, trials=99, parallelism=1, patience=3, trials_on="spark"), built, setting) == name
    other = [
        (tuned(cfg, seed=99), built, setting),
        (tuned(cfg, width=(1, 2)), built, setting),
        (cfg, built, replace(setting, epochs=9)),
        (cfg, replace(built, folder=built.folder.replace(Path(built.folder).parent.name, "0123456789abcdef")), setting),
    ]
    assert len({name, *(search_store.key(*parts) for parts in other)}) == 5


def test_trial_that_kills_the_driver_twice_fails(prepared, tmp_path):
    import mlflow

    _, places, _, _, experiment = prepared
    client = mlflow.MlflowClient(places.mlflow_uri)
    parent = client.create_run(experiment).info.run_id
    for times in (1, 2):
        run = client.create_run(experiment).info.run_id
        search_store.write(
            tmp_path,
            {
                "number": 0,
                "status": "running",
                "kind": "driver",
                "run_id": run,
                "learning_rate": 1e-3,
                "dropout": 0.0,
                "width": 4,
            },
        )
        records, _ = search_store.resume(tmp_path, client, parent)
        assert client.get_run(run).info.status == "KILLED" and len(records) == times - 1
    assert records[0]["status"] == "fail" and "died 2 times" in records[0]["reason"]
