"""Names of spooled files."""

from datetime import UTC, datetime

import pytest

from device.spool.entry import describe, parse, stem

AT = datetime(2026, 3, 2, 14, 5, 9, 123456, UTC)


def test_name_holds_all_facts():
    entry = describe([b"ab", b"cd"], "porch_1.a", AT, 17, "package")
    assert parse(entry.name) == entry and entry.size == 4
    assert entry.key.startswith("device=porch_1.a/date=2026-03-02/2026-03-02T140509.123Z_") and entry.key.endswith(
        "_000017_package.jpg"
    )
    assert len(entry.name) < 256 - len("drop-.reason")


def test_longest_name_fits_file_system():
    entry = describe([b"x"], "d" * 63, AT, 9_999_999_999, "l" * 40)
    assert len(entry.name) <= 255 - len("drop-") and parse(entry.name) == entry


@pytest.mark.parametrize("name", ["photo.jpg", "", "1~a~b~2~c.jpg", "0000000001~a~b~2~" + "0" * 63 + ".jpg"])
def test_foreign_name_parses_to_none(name):
    assert parse(name) is None


def test_names_sort_in_order_taken_though_clock_jumps():
    times = [AT, AT.replace(year=1970), AT.replace(year=2040)]
    names = [describe([b"x"], "d", at, sequence).name for sequence, at in enumerate(times, 9)]
    assert names == sorted(names)
    assert stem(AT, "ab" * 16, 5) == "2026-03-02T140509.123Z_abababab_000005"
