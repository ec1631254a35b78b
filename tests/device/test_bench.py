"""The table of the model's variants."""

import json

import bundles
from steps import ready

from device import bench, config

CARD = {
    "digest": "d",
    "version": "3",
    "at": "2026-03-02T14:05:09+00:00",
    "variant": "int8",
    "board": {"temperature_c": None, "throttled": None},
    "table": {
        "int8": {
            "p50_ms": 1.0,
            "p90_ms": 2.0,
            "p99_ms": 3.0,
            "memory_mb": 20.0,
            "largest": 0.01,
            "tolerance": 0.05,
            "failed": "",
        },
        "float32": {"failed": "too slow"},
    },
}


def settings(tmp_path):
    path = tmp_path / "device.toml"
    path.write_text(f'[model]\nfolder = "{tmp_path}"\n')
    return config.load(path)


def test_bench_without_model_returns_1(tmp_path, capsys):
    assert bench.run(settings(tmp_path)) == 1
    assert "no model in" in capsys.readouterr().err


def test_table_names_variant_in_use_and_reason_of_failure(capsys):
    bench._show("a", json.loads(json.dumps(CARD)))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("model 3, slot a") and "no temperature to read" in lines[-1]
    assert lines[2].startswith("int8") and lines[2].endswith("in use") and lines[3].split(None, 1)[1] == "too slow"


def test_bench_shows_each_variant_and_the_fastest_is_used(scoring):
    bundles.publish(scoring.models, scoring.place, "2", variants=("float32", "float16", "int8"))
    record = ready(scoring, "2")
    printed = scoring.run("bench").stdout
    card = json.loads((scoring.model / record["slot"] / "checked.json").read_text())
    fastest = min(card["table"], key=lambda variant: card["table"][variant]["p50_ms"])
    assert card["variant"] == fastest == record["variant"]
    rows = {row.split()[0]: row for row in printed.splitlines()[2:-1]}
    assert set(rows) == {"float32", "float16", "int8"}
    assert "in use" in rows[record["variant"]] and printed.count("in use") == 1
    assert {variant: figures["tolerance"] for variant, figures in card["table"].items()} == {
        "float32": 0.001,
        "float16": 0.02,
        "int8": 0.02,
    }
    for figures in card["table"].values():
        assert 0 < figures["p50_ms"] <= figures["p90_ms"] <= figures["p99_ms"]
        assert 20 < figures["memory_mb"] < 200 and figures["frames"] >= 40
    assert scoring.run("bench", "--again").stdout != printed


def test_bench_without_a_model_names_sync(scoring):
    done = scoring.run("bench", check=False)
    assert done.returncode == 1 and "python -m device sync" in done.stderr
