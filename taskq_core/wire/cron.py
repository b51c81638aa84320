"""Compute when a periodic entry fires: cron lines, descriptors and intervals, with the same meaning as in Go Asynq.

::

    [CRON_TZ=<zone> ] [second] minute hour day-of-month month day-of-week
    [CRON_TZ=<zone> ] @yearly @annually @monthly @weekly @daily @midnight @hourly
    @every <duration>                                     1h30m, 90s: Go's notation, whole seconds

A cron line fires at every instant whose local time matches it. So a local time that a change to summer time skips does
not fire on that day, and a local time that a change back repeats fires twice. An interval fires a whole number of
intervals after its start. All times are whole Unix seconds. No code here reads a clock.

croniter finds the next matching local time. This module parses specs and converts local times to instants: it passes
the fields to croniter as plain numbers, and uses the result of croniter only within a period of constant UTC offset.
"""

from collections.abc import Mapping
from copy import copy
from dataclasses import dataclass, field
from datetime import MAXYEAR, UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol

from msgspec import Struct

from taskq_core.errors import ConfigurationError, WireFormatError
from taskq_core.wire import parse_duration
from taskq_core.wire.durations import NS_PER_S

if TYPE_CHECKING:  # not imported at run time: croniter starts a process, and most programs do not need it
    from croniter import croniter

SEARCH_YEARS = 5
"""Number of calendar years in which the next firing is searched, as in Go."""

_DAY_S = 86_400
_STEADY_S = 2 * _DAY_S
"""Seconds in which a time zone changes its UTC offset at most once. Since 1970, all changes were at least six days
apart."""
_LAST_S = int(datetime(MAXYEAR - 2 * SEARCH_YEARS, 1, 1, tzinfo=UTC).timestamp())
"""Unix second at which every search ends, some years before the end of Python's calendar."""
_PREFIXES = ("CRON_TZ=", "TZ=")
_DESCRIPTORS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Schedule(Protocol):
    """Computes when a periodic entry fires. All times are Unix seconds."""

    @property
    def text(self) -> str:
        """The complete spec with its time zone, as Go's tools read it. Equal schedules may have different texts."""
        ...

    def next_after(self, moment_s: int) -> int | None:
        """Return the first firing after a moment, or None without a firing in the next five years."""
        ...

    def anchor(self, start_s: int, limit_s: int) -> int:
        """Return the time from which `next_after` finds all firings after `limit_s`, and few earlier firings.

        Callers use this time to skip firings that are in the past. The result is at most `limit_s`, or the start of the
        schedule if that is later.
        """
        ...


class Every(Struct, frozen=True):
    """Fires at a fixed interval in seconds, counted from its start."""

    interval_s: int
    text: str

    def next_after(self, moment_s: int) -> int | None:
        """Return the time one interval later. `moment_s` must be the start or a firing."""
        return moment_s + self.interval_s

    def anchor(self, start_s: int, limit_s: int) -> int:
        """Return the last firing that is not after the limit, or the start if there is none."""
        return start_s + max(0, limit_s - start_s) // self.interval_s * self.interval_s


class Bounded(Struct, frozen=True):
    """Limits another schedule to the time between a start and an end (Unix seconds; None for no limit).

    An interval is counted from the start: it fires at the start, and then a whole number of intervals later.
    """

    inner: Schedule
    start_s: int | None = None
    end_s: int | None = None

    @property
    def text(self) -> str:
        """The complete spec. It does not contain the start and the end."""
        return self.inner.text

    def next_after(self, moment_s: int) -> int | None:
        """Return the first firing after a moment, or None without a firing in the next five years."""
        found_s = self._unended(moment_s)
        return None if found_s is None or (self.end_s is not None and found_s >= self.end_s) else found_s

    def _unended(self, moment_s: int) -> int | None:
        if self.start_s is None:
            return self.inner.next_after(moment_s)
        if not isinstance(self.inner, Every):
            return self.inner.next_after(max(moment_s, self.start_s - 1))
        if moment_s < self.start_s:
            return self.start_s
        interval_s = self.inner.interval_s
        return self.start_s + ((moment_s - self.start_s) // interval_s + 1) * interval_s

    def anchor(self, start_s: int, limit_s: int) -> int:
        """Return the time from which to search for firings after `limit_s`. See `Schedule.anchor`."""
        return self.inner.anchor(start_s, limit_s) if self.start_s is None else max(start_s, limit_s)


class _Field(Struct, frozen=True):
    """One of the six fields of a cron line, such as the month: its name, bounds, and names for its numbers (`jan`)."""

    name: str
    least: int
    most: int
    names: Mapping[str, int]

    def read(self, text: str) -> tuple[str, bool]:
        """Return the field for croniter (numbers, or `*` for all), and whether the field is written as a star.

        Raises:
            ValueError: The field is not valid. The message is the end of a sentence.
        """
        numbers: set[int] = set()
        is_star = False
        for part in text.split(","):
            found, star = self._read_part(part)
            numbers |= found
            is_star = is_star or star
        is_all = len(numbers) > self.most - self.least
        return "*" if is_all else ",".join(map(str, sorted(numbers))), is_star

    def _read_part(self, part: str) -> tuple[set[int], bool]:
        span, slash, step_text = part.partition("/")
        is_star = span in ("*", "?")
        if is_star:
            first, last = self.least, self.most
        else:
            start, hyphen, end = span.partition("-")
            first = self._number(start)
            last = self._number(end) if hyphen else self.most if slash else first
        step = self._digits(step_text) if slash else 1
        if first < self.least or last > self.most:
            raise ValueError(f"{part!r} is outside {self.least} to {self.most}")
        if first > last:
            raise ValueError(f"{part!r} begins after its end")
        if step < 1:
            raise ValueError(f"the step of {part!r} must be at least 1")
        return set(range(first, last + 1, step)), is_star and step == 1

    def _number(self, text: str) -> int:
        return self.names.get(text.lower(), -1) if text.isalpha() and text.lower() in self.names else self._digits(text)

    @staticmethod
    def _digits(text: str) -> int:
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise ValueError(f"{text!r} is not a number")
        return int(text)


def _numbered(names: str, first: int) -> dict[str, int]:
    return {name: number for number, name in enumerate(names.split(), first)}


_SECOND = _Field("second", 0, 59, {})
_FIELDS = (
    _Field("minute", 0, 59, {}),
    _Field("hour", 0, 23, {}),
    _Field("day of month", 1, 31, {}),
    _Field("month", 1, 12, _numbered("jan feb mar apr may jun jul aug sep oct nov dec", 1)),
    _Field("day of week", 0, 6, _numbered("sun mon tue wed thu fri sat", 0)),
)


@dataclass(frozen=True, slots=True)
class Cron:
    """Fires at every instant whose local time matches a cron line."""

    text: str
    zone: tzinfo
    walk: "croniter" = field(compare=False, repr=False)
    """Finds local times, without a zone, that match the cron line. Threads share this object, so each search advances a
    copy."""

    def anchor(self, start_s: int, limit_s: int) -> int:
        """Return the later of limit and start, because the firings of a cron line do not depend on its start."""
        return max(start_s, limit_s)

    def next_after(self, moment_s: int) -> int | None:
        """Return the first firing after a moment, or None without a firing in the next five years."""
        return _next_after(self, moment_s)

    def compute_next_after(self, moment_s: int) -> int | None:
        """Compute the uncached result of `next_after`."""
        start_s = moment_s + 1
        if not 0 <= start_s < _LAST_S:
            return None
        year = datetime.fromtimestamp(start_s, self.zone).year + SEARCH_YEARS + 1
        limit_s = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        local_s = None
        while True:
            offset_s = self._offset(start_s)
            if local_s is None:
                local_s = self._first_match(start_s + offset_s, limit_s)
            found_s = local_s - offset_s
            change_s = self._change_after(start_s, offset_s)
            if change_s is not None and found_s >= change_s:
                start_s, local_s = change_s, None
            elif local_s >= limit_s:
                return None
            elif found_s <= start_s + _STEADY_S or self.zone is UTC:
                return found_s
            else:  # the UTC offset may change before the match, so search again from one day earlier
                start_s = local_s - _DAY_S

    def _first_match(self, local_s: int, limit_s: int) -> int:
        """Return the first matching local second at or after `local_s`, or the limit if croniter finds none."""
        from croniter import CroniterBadDateError

        try:
            return int(copy(self.walk).get_next(float, local_s - 1))
        except CroniterBadDateError:
            return limit_s

    def _change_after(self, start_s: int, offset_s: int) -> int | None:
        """Return the time of the next change of the UTC offset, None if there is none within `_STEADY_S`."""
        low, high = start_s, start_s + _STEADY_S
        if self.zone is UTC or self._offset(high) == offset_s:
            return None
        while high - low > 1:  # binary search: the offset changes after `low`, and at `high` at the latest
            middle = (low + high) // 2
            low, high = (middle, high) if self._offset(middle) == offset_s else (low, middle)
        return high

    def _offset(self, moment_s: int) -> int:
        offset = datetime.fromtimestamp(moment_s, self.zone).utcoffset()
        assert offset is not None
        return offset // timedelta(seconds=1)


@lru_cache(maxsize=4096)
def _next_after(cron: Cron, moment_s: int) -> int | None:
    """Cache `Cron.compute_next_after`, because a scheduler repeats its calls, for each entry with the same spec."""
    return cron.compute_next_after(moment_s)


def parse_schedule(spec: str, *, zone: str = "UTC") -> Schedule:
    """Parse the spec of a schedule, such as a cron line.

    Args:
        spec: The spec; the docstring of this module describes the forms.
        zone: IANA name of the time zone for a cron line without a zone, or with the zone `Local`.

    Raises:
        ConfigurationError: The spec or the zone is not valid. The message contains the spec and the problem.
    """
    if not isinstance(spec, str):
        raise ConfigurationError(f"a schedule must be text such as '*/5 * * * *', got {spec!r}")
    return _parse(spec, zone)


@lru_cache(maxsize=256)
def _parse(spec: str, zone: str) -> Schedule:
    rest = spec
    for prefix in _PREFIXES:
        if spec.startswith(prefix):
            name, _, rest = spec.removeprefix(prefix).partition(" ")
            rest = rest.strip()
            if name != "Local":
                zone = name
            break
    try:
        tz = time_zone(zone)
        if rest.startswith("@every "):
            return _every(rest.removeprefix("@every "))
        return _cron(rest, zone, tz)
    except ValueError as error:  # ConfigurationError is a subclass of ValueError
        raise ConfigurationError(f"schedule {spec[:120]!r}: {error}") from None


def _every(text: str) -> Every:
    try:
        interval_ns = parse_duration(text)
    except WireFormatError as error:
        raise ValueError(str(error)) from None
    if interval_ns <= 0:
        raise ValueError("an interval must be more than 0")
    interval_s = max(1, interval_ns // NS_PER_S)
    return Every(interval_s, f"@every {text}")


def _cron(text: str, zone: str, tz: tzinfo) -> Cron:
    from croniter import croniter

    if text.startswith("@"):
        if text not in _DESCRIPTORS:
            raise ValueError(f"unknown descriptor; known are {', '.join(_DESCRIPTORS)} and '@every <duration>'")
        line = _DESCRIPTORS[text]
    else:
        line = text = " ".join(text.split())
    words = line.split()
    if len(words) not in (5, 6):
        raise ValueError(
            f"a cron line has five fields (minute, hour, day of month, month, day of week), or six with the second "
            f"in front, got {len(words)}"
        )
    fields = _FIELDS if len(words) == 5 else (_SECOND, *_FIELDS)
    read = []
    for each, word in zip(fields, words, strict=True):
        try:
            read.append(each.read(word))
        except ValueError as error:
            raise ValueError(f"{each.name}: {error}") from None
    # As in cron: if neither day field is a star, it is enough that one of them matches.
    either_day = not read[-3][1] and not read[-1][1]
    if either_day and "*" in (read[-3][0], read[-1][0]):  # a field such as 1-31 allows every day
        read[-3] = read[-1] = ("*", True)
    _refuse_impossible(days=read[-3][0], months=read[-2][0], days_of_week=read[-1][0])
    return Cron(
        text=text if zone == "UTC" else f"CRON_TZ={zone} {text}",
        zone=tz,
        walk=croniter(
            " ".join(numbers for numbers, _ in read),
            start_time=0,  # any number; without one, croniter would read the clock
            day_or=either_day,
            max_years_between_matches=SEARCH_YEARS,
            second_at_beginning=True,
        ),
    )


_LONGEST_MONTH = {2: 29, 4: 30, 6: 30, 9: 30, 11: 30}


def _refuse_impossible(*, days: str, months: str, days_of_week: str) -> None:
    """Refuse days that do not occur in the given months, such as 30 February. A day of the week is always possible."""
    if days == "*" or months == "*" or days_of_week != "*":
        return
    first = min(map(int, days.split(",")))
    if first > max(_LONGEST_MONTH.get(int(month), 31) for month in months.split(",")):
        raise ValueError(f"it never fires: month {months} has no day {days}")


def with_zone(spec: str, zone: str = "UTC") -> str:
    """Format a spec for display, followed by the time zone of a cron line: `0 9 * * * (Europe/Berlin)`.

    Args:
        spec: A spec, valid or not.
        zone: IANA name of the time zone for a cron line that names no zone.
    """
    if spec.startswith(_PREFIXES):
        named, _, spec = spec.partition("=")[2].partition(" ")
        zone = zone if named == "Local" else named
    return spec if spec.startswith("@every ") else f"{spec.strip()} ({zone})"


def time_zone(name: str) -> tzinfo:
    """Return the time zone of an IANA name. `UTC` needs no time zone data.

    Raises:
        ConfigurationError: The name is unknown, or this system has no time zone data.
    """
    if name == "UTC":
        return UTC
    import zoneinfo  # imported here: it searches the file system, and only periodic tasks need it

    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError, TypeError):
        raise ConfigurationError(
            f"there is no time zone {str(name)[:80]!r}; use an IANA name such as 'Europe/Berlin' "
            "(a system without time zone data needs the package tzdata)"
        ) from None
