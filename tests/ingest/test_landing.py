"""The landing zone lists each landed file once, including files that Spark's listing skips."""

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lakevision.ingest import landing

AT = datetime(2026, 3, 2, 8, 15, tzinfo=UTC)


def test_walk_lists_photographs_and_no_partial_files(tmp_path):
    names = ["a.jpg", "device=a/b.jpg", "_DSC0001.JPG", "notes.txt"]
    for name in (*names, ".hidden.jpg", ".dot/c.jpg", "_SUCCESS", "d.jpg._COPYING_"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"abc")
        os.utime(path, ns=(0, 1_772_439_300_123_456_789))
    listed = list(landing.walk(str(tmp_path)))
    assert sorted(file.path for file in listed) == sorted(names)
    assert {(file.modified_at, file.length) for file in listed} == {(AT.replace(microsecond=123_000), 3)}


def test_name_that_is_not_utf8_is_escaped_and_can_be_opened(tmp_path):
    Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"gr\xf6n.jpg"))).write_bytes(b"abc")
    (file,) = landing.walk(str(tmp_path))
    assert file.path == "gr\\xf6n.jpg" and landing.passed_over(file)
    assert Path(landing.address(str(tmp_path), file.path)).read_bytes() == b"abc"


@pytest.mark.parametrize(
    "path, length, expected",
    [
        pytest.param("a.jpg", 1, False, id="plain"),
        pytest.param("a.jpg", 0, True, id="empty"),
        pytest.param("_DSC0001.JPG", 1, True, id="hidden name"),
        pytest.param("_raw/a.jpg", 1, True, id="hidden folder"),
        pytest.param("_part=1/a.jpg", 1, False, id="partition"),
    ],
)
def test_files_that_spark_skips_are_marked(path, length, expected):
    assert landing.passed_over(landing.File(path, AT, length)) is expected


@pytest.mark.parametrize("prefix", ["file:", "file://", "dbfs:"])
def test_path_is_relative_to_the_landing_zone(prefix):
    assert landing.relative("/lake/landing", f"{prefix}/lake/landing/a/b.jpg") == "a/b.jpg"


def test_changed_or_removed_content_raises_changed(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"abc")
    digest = hashlib.sha256(b"abc").hexdigest()
    assert landing.content("", "a.jpg", digest, b"stored") == b"stored"
    assert landing.content(str(tmp_path), "a.jpg", digest, None) == b"abc"
    (tmp_path / "a.jpg").write_bytes(b"other")
    with pytest.raises(landing.Changed, match="a.jpg: the bytes have changed"):
        landing.content(str(tmp_path), "a.jpg", digest, None)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(landing.Changed, match="a.jpg: No such file"):
        landing.content(str(tmp_path), "a.jpg", digest, None)
