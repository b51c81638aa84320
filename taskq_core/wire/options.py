"""Option strings of periodic entries: `MaxRetry(3)`, `Queue("low")`, `Timeout(1m30s)`.

A scheduler stores one string per option, so that tools can show the options. Go's inspector panics at a string without
a parenthesis, so only `format_option` may write them. `parse_option` accepts what Go accepts, and ignores the rest.
"""

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import NoReturn

from taskq_core.errors import WireFormatError
from taskq_core.wire.durations import format_duration, parse_duration
from taskq_core.wire.quoting import quote, unquote


class OptionKind(StrEnum):
    """Kind of an option. The value is its name on the wire."""

    MAX_RETRY = "MaxRetry"
    QUEUE = "Queue"
    TASK_ID = "TaskID"
    TIMEOUT = "Timeout"
    DEADLINE = "Deadline"
    UNIQUE = "Unique"
    PROCESS_AT = "ProcessAt"
    PROCESS_IN = "ProcessIn"
    RETENTION = "Retention"
    GROUP = "Group"
    HEADER = "Header"


OptionValue = int | str | datetime | tuple[str, str]
"""A count (`MaxRetry`), nanoseconds (durations), text (`Queue`, `TaskID`, `Group`), an aware datetime (`Deadline`,
`ProcessAt`), or a header's name and value."""


@dataclass(frozen=True, slots=True)
class Option:
    """One option of a periodic entry."""

    kind: OptionKind
    value: OptionValue


_TEXTS = frozenset({OptionKind.QUEUE, OptionKind.TASK_ID, OptionKind.GROUP})
_DURATIONS = frozenset({OptionKind.TIMEOUT, OptionKind.UNIQUE, OptionKind.PROCESS_IN, OptionKind.RETENTION})
_TIMES = frozenset({OptionKind.DEADLINE, OptionKind.PROCESS_AT})
# Go writes these two kinds but does not read them.
_NEVER_PARSED = frozenset({OptionKind.TASK_ID, OptionKind.GROUP})

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# `Tue Nov 24 23:27:03 UTC 2026`. Like Go, accept one digit for day and hour, several blanks, and fractions of a second.
_TIME = re.compile(
    r"(?:mon|tue|wed|thu|fri|sat|sun) +(jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec) +([0-9]{1,2}) +"
    r"([0-9]{1,2}):([0-9]{2}):([0-9]{2})(?:[.,][0-9]+)? +([^ ]+) +([0-9]{4})",
    re.IGNORECASE,
)
# Names of time zones, case-sensitive: three letters, four or five letters ending in T, and numeric names.
_ZONE = re.compile(r"[A-Z]{3}|[A-Z]{3,4}T|WITA|ChST|MeST|(?:GMT)?[+-](?:[01]?[0-9]|2[0-3])")
_UNNAMED_ZONE = re.compile(r"UTC[+-][0-9]{2}:[0-9]{2}(?::[0-9.]+)?")
_COUNT = re.compile(r"([+-]?)0*([0-9]{1,19})")
_INT64_MAX = 2**63 - 1
_HTML = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"})
_SURROGATE = re.compile("[\ud800-\udfff]")


def format_option(option: Option) -> str:
    """Return the string that Go writes for an option.

    A datetime is written with the name of its zone. Pass UTC datetimes, because Go cannot read a zone without a name.

    Raises:
        WireFormatError: The value does not belong to the kind.
    """
    kind, value = option.kind, option.value
    if kind is OptionKind.MAX_RETRY and isinstance(value, int):
        argument = str(max(value, 0))
    elif kind in _TEXTS and isinstance(value, str):
        argument = quote(value)
    elif kind in _DURATIONS and isinstance(value, int):
        argument = format_duration(value)
    elif kind in _TIMES and isinstance(value, datetime) and value.tzinfo is not None:
        argument = _format_time(value)
    elif kind is OptionKind.HEADER and isinstance(value, tuple) and len(value) == 2:
        argument = json.dumps(value, ensure_ascii=False, separators=(",", ":")).translate(_HTML)
    else:
        raise WireFormatError(f"option {kind} cannot hold a value of type {type(value).__name__}")
    return f"{kind}({argument})"


def parse_option(text: str) -> Option | None:
    """Parse an option string. Return None for a string that Go ignores or panics at. Never raises.

    The result is None for `TaskID` and `Group`, which Go does not read. The argument ends at the first `)`, as in Go,
    so a value that contains `)` is not read correctly.
    """
    name, opened, rest = text.partition("(")
    argument, closed, _ = rest.partition(")")
    if not opened:
        return None
    try:
        kind = OptionKind(name)
        if kind in _NEVER_PARSED:
            return None
        return Option(kind, _parse_value(kind, argument if closed else ""))
    except (ValueError, RecursionError):  # WireFormatError and JSON's error are ValueErrors; deep JSON recurses
        return None


def _parse_value(kind: OptionKind, argument: str) -> OptionValue:
    if kind is OptionKind.MAX_RETRY:
        return _parse_count(argument)
    if kind in _TEXTS:
        return unquote(argument)
    if kind in _DURATIONS:
        return parse_duration(argument)
    if kind in _TIMES:
        return _parse_time(argument)
    return _parse_header(argument)


def _parse_count(argument: str) -> int:
    found = _COUNT.fullmatch(argument)
    if found is None or int(found[2]) > _INT64_MAX + (found[1] == "-"):
        raise ValueError("not a count")
    return 0 if found[1] == "-" else int(found[2])


def _format_time(moment: datetime) -> str:
    zone = moment.tzname() or ""
    if not zone or _UNNAMED_ZONE.fullmatch(zone):
        zone = moment.strftime("%z")[:5]
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day} {month} {moment.day:2d} {moment:%H:%M:%S} {zone} {moment.year:04d}"


def _parse_time(argument: str) -> datetime:
    found = _TIME.fullmatch(argument)
    if found is None or not _ZONE.fullmatch(found[6]):
        raise ValueError("not a time")
    month = _MONTHS.index(found[1].title()) + 1
    day, hour, minute, second, year = (int(found[group]) for group in (2, 3, 4, 5, 7))
    return datetime(year, month, day, hour, minute, second, tzinfo=_zone(found[6]))


def _zone(name: str) -> timezone:
    if name == "UTC":
        return UTC
    # The offset of a zone with a letter name is unknown without a table of zones. Like Go, use 0.
    offset = name.removeprefix("GMT")
    hours = int(offset) if offset[:1] in ("+", "-") else 0
    return timezone(timedelta(hours=hours), name)


def _parse_header(argument: str) -> tuple[str, str]:
    read = json.loads(argument, parse_constant=_refuse_constant)
    if read is None:
        return "", ""
    if not isinstance(read, list):
        raise ValueError("not a list")
    pair = ["" if item is None else item for item in read[:2]] + ["", ""]
    if not isinstance(pair[0], str) or not isinstance(pair[1], str):
        raise ValueError("not texts")
    return _SURROGATE.sub("\ufffd", pair[0]), _SURROGATE.sub("\ufffd", pair[1])


def _refuse_constant(_name: str) -> NoReturn:
    raise ValueError("NaN and Infinity are not JSON")
