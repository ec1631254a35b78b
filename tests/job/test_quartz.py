"""Quartz expressions: those of the tutorial are accepted, and each fault is named."""

import pytest

from lakevision.job import quartz


@pytest.mark.parametrize(
    "expression",
    [
        "0 0 3 ? * SUN",
        "0 30 0/6 * * ?",
        "0 0/15 8-17 ? * MON-FRI",
        "0 0 12 L * ?",
        "0 0 12 LW * ?",
        "0 0 12 L-3 * ?",
        "0 0 12 15W * ?",
        "0 0 12 ? * 6#3",
        "0 0 12 ? JAN,JUL FRIL",
        "0 0 12 1,15 * ? 2027-2030",
        "*/10 * * * * ?",
        "0 0 22-4 * * ?",
    ],
)
def test_valid_expression_has_no_fault(expression):
    assert quartz.fault(expression) == ""


@pytest.mark.parametrize(
    "expression, message",
    [
        pytest.param("0 3 * * 0", "five are Unix cron", id="Unix cron"),
        pytest.param("0 0 3 * * SUN", "must be ?", id="both days said"),
        pytest.param("0 0 3 ? * ?", "must be ?", id="no day said"),
        pytest.param("0 0 24 * * ?", "hours: 24 is not from 0 to 23", id="hour 24"),
        pytest.param("60 0 3 * * ?", "seconds: 60", id="second 60"),
        pytest.param("0 0 3 ? * 0", "day of week: 0 is not from 1 to 7", id="Sunday is 1"),
        pytest.param("0 0 3 ? * SUNDAY", "'SUNDAY' is no number", id="day written out"),
        pytest.param("0 0 3 ? 13 MON", "month: 13", id="month 13"),
        pytest.param("0 0 3 32 * ?", "day of month: 32", id="day 32"),
        pytest.param("0 0 3/0 * * ?", "step '0'", id="step nought"),
        pytest.param("0 0 1-2-3 * * ?", "'1-2-3' is no range", id="range of three"),
        pytest.param("0 ? 3 * * MON", "must be ?", id="question mark elsewhere"),
        pytest.param("0 0 3 ? * 6#6", "day of week", id="sixth Friday"),
        pytest.param("0 0 3 ? * MON 1969", "year: 1969", id="the past"),
        pytest.param("@daily", "1 fields", id="nickname"),
    ],
)
def test_fault_of_an_expression_is_named(expression, message):
    assert message in quartz.fault(expression)
