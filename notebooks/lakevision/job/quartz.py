"""Quartz cron expressions, as Databricks' schedules take them: seconds first, six or seven fields.

After the Quartz Scheduler's CronTrigger tutorial: seconds minutes hours day-of-month month day-of-week [year]. Exactly
one of the two days is `?`. Months and days have names of three letters; L, W and # are allowed as in the tutorial.
Whether a date ever comes (31 February) is not checked.
"""

import re
from collections.abc import Sequence

MONTHS = ["JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC"]
DAYS = ["SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT"]  # 1 is Sunday
FIELDS: tuple[tuple[str, int, int, Sequence[str]], ...] = (
    ("seconds", 0, 59, ()),
    ("minutes", 0, 59, ()),
    ("hours", 0, 23, ()),
    ("day of month", 1, 31, ()),
    ("month", 1, 12, MONTHS),
    ("day of week", 1, 7, DAYS),
    ("year", 1970, 2099, ()),
)


def fault(expression: str) -> str:
    """The first fault of an expression, in words; "" if there is none."""
    parts = expression.split()
    if len(parts) not in (6, 7):
        hint = ": five are Unix cron, Quartz has seconds in front" if len(parts) == 5 else ""
        return f"{expression!r} has {len(parts)} fields, Quartz 6 or 7{hint}"
    days = (parts[3], parts[5])
    if days.count("?") != 1:
        return f"{expression!r}: exactly one of the two days must be ?, but they are {days[0]} and {days[1]}"
    for part, field in zip(parts, FIELDS, strict=False):  # the year is optional
        if part == "?" and field[0].startswith("day"):
            continue
        for item in part.split(","):
            wrong = _item_fault(item.upper(), *field)
            if wrong:
                return f"{expression!r}, {field[0]}: {wrong}"
    return ""


def _item_fault(item: str, name: str, low: int, high: int, names: Sequence[str]) -> str:
    """The fault of one item of a field's list: *, 5, 1-5, MON-FRI, */5, 0/5, L, L-3, LW, 15W, 6L, 6#3."""
    if name == "day of month" and re.fullmatch(r"L|LW|L-([1-9]|[12]\d|30)|([1-9]|[12]\d|3[01])W", item):
        return ""
    if name == "day of week" and re.fullmatch(rf"L|([1-7]|{'|'.join(DAYS)})(L|#[1-5])", item):
        return ""
    base, slash, step = item.partition("/")
    if slash and not (step.isdigit() and 1 <= int(step) <= high):
        return f"step {step!r} of {item!r} is not a number from 1 to {high}"
    if base == "*":
        return ""
    ends = base.split("-")
    if len(ends) > 2:
        return f"{base!r} is no range"
    for end in ends:
        if end in names:
            continue
        if not end.isdigit():
            return f"{end!r} is no number from {low} to {high}" + (f", and none of {', '.join(names)}" if names else "")
        if not low <= int(end) <= high:
            return f"{end} is not from {low} to {high}"
    return ""
