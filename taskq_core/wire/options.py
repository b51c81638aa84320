"""Option strings of periodic entries: `MaxRetry(3)`, `Queue("low")`, `Timeout(1m30s)`.

A scheduler stores one string per option, so that tools can show the options. Go's inspector panics at a string without
a parenthesis, so only `format_option` may write these strings. `parse_option` reads the strings that schedulers write.
"""

import json
import re
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum

import msgspec
from msgspec import Struct

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


class Option(Struct, frozen=True):
    """One option of a periodic entry."""

    kind: OptionKind
    value: OptionValue


_TEXTS = frozenset({OptionKind.QUEUE, OptionKind.TASK_ID, OptionKind.GROUP})
_DURATIONS = frozenset({OptionKind.TIMEOUT, OptionKind.UNIQUE, OptionKind.PROCESS_IN, OptionKind.RETENTION})
_TIMES = frozenset({OptionKind.DEADLINE, OptionKind.PROCESS_AT})

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_UNNAMED_ZONE = re.compile(r"UTC[+-][0-9]{2}:[0-9]{2}(?::[0-9.]+)?")
_OFFSET = re.compile(r"(?:GMT)?([+-])(\d\d?)(\d\d)?")
_HTML = str.maketrans({"<": r"\u003c", ">": r"\u003e", "&": r"\u0026", "\u2028": r"\u2028", "\u2029": r"\u2029"})


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
    """Parse the option string of a scheduler in Python or Go. Return None for any other text. Never raises."""
    name, _, argument = text.removesuffix(")").partition("(")
    try:
        kind = OptionKind(name)
        return Option(kind, _parse_value(kind, argument))
    except (ValueError, OverflowError, RecursionError):  # ValueError includes WireFormatError and JSON's error
        return None


def _parse_value(kind: OptionKind, argument: str) -> OptionValue:
    if kind is OptionKind.MAX_RETRY:
        return max(0, int(argument))
    if kind in _TEXTS:
        return unquote(argument)
    if kind in _DURATIONS:
        return parse_duration(argument)
    if kind in _TIMES:
        return _parse_time(argument)
    return msgspec.json.decode(argument, type=tuple[str, str])


def _format_time(moment: datetime) -> str:
    zone = moment.tzname() or ""
    if not zone or _UNNAMED_ZONE.fullmatch(zone):
        zone = moment.strftime("%z")[:5]
    day, month = _DAYS[moment.weekday()], _MONTHS[moment.month - 1]
    return f"{day} {month} {moment.day:2d} {moment:%H:%M:%S} {zone} {moment.year:04d}"


def _parse_time(argument: str) -> datetime:
    """Parse a time such as `Tue Nov 24 23:27:03 UTC 2026`. Like Go, read a zone with an unknown offset as UTC."""
    _, month, day, clock, zone, year = argument.split()
    offset = _OFFSET.fullmatch(zone)
    tz = UTC
    if offset is not None:
        ahead = timedelta(hours=int(offset[2]), minutes=int(offset[3] or 0))
        tz = timezone(-ahead if offset[1] == "-" else ahead)
    hour, minute, second = map(int, clock.split(":"))
    return datetime(int(year), _MONTHS.index(month) + 1, int(day), hour, minute, second, tzinfo=tz)
