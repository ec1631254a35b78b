"""Small JSON records."""

import json
import os

import pytest

from device.spool import records


def test_record_is_read_back_and_replaced_whole(tmp_path):
    path = tmp_path / "capture.json"
    records.write(path, {"captured": 1, "last": {"key": "a"}})
    records.write(path, {"captured": 2}, durable=True)
    assert records.read(path) == {"captured": 2} and os.listdir(tmp_path) == ["capture.json"]


def test_missing_record_reads_as_empty(tmp_path):
    assert records.read(tmp_path / "none.json") == {}


@pytest.mark.parametrize("text", ["", '{"captured": 1', "[1, 2]", "\x00\x00"], ids=["empty", "half", "list", "zeros"])
def test_damaged_record_reads_as_empty(tmp_path, text):
    (tmp_path / "a.json").write_text(text)
    assert records.read(tmp_path / "a.json") == {}


def test_damage_is_reported(tmp_path, capsys):
    (tmp_path / "a.json").write_text("{")
    records.read(tmp_path / "a.json")
    assert "a.json is damaged" in capsys.readouterr().err


def test_failed_write_raises_and_keeps_old_record(tmp_path):
    path = tmp_path / "a.json"
    records.write(path, {"n": 1})
    with pytest.raises(TypeError):
        records.write(path, {"n": object()})
    assert json.loads(path.read_text()) == {"n": 1}


def test_note_that_cannot_be_written_goes_to_stderr(tmp_path, capsys):
    records.write_text(tmp_path / "no folder" / "a.reason", "too large\n")
    assert "the note was: too large" in capsys.readouterr().err
