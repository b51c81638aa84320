"""Read and write durations in Go's notation (`1h30m0s`), exact to the nanosecond.

Option strings of periodic entries and `@every` specs contain such durations. The range is Go's: 64 bits of nanoseconds,
about -292 to 292 years.
"""

import re
from datetime import timedelta

from taskq_core.errors import WireFormatError

NS_PER_S = 1_000_000_000
MAX_DURATION_NS = 2**63 - 1
MIN_DURATION_NS = -(2**63)
LATEST_S = 253_402_300_799
"""Last Unix second of the year 9999, the last that `datetime` can represent. Later times are cut to it."""

_UNITS_NS = {
    "ns": 1,
    "us": 1_000,
    "\N{MICRO SIGN}s": 1_000,
    "\N{GREEK SMALL LETTER MU}s": 1_000,
    "ms": 1_000_000,
    "s": NS_PER_S,
    "m": 60 * NS_PER_S,
    "h": 3_600 * NS_PER_S,
}
_PART = re.compile(r"([0-9]*)(?:\.([0-9]*))?([^0-9.]*)")
# Enough digits for every valid duration. A longer text is refused, because Python may refuse to convert it.
_DIGITS = 20


def format_duration(ns: int) -> str:
    """Return a duration in the notation in which Go prints it.

    Args:
        ns: Nanoseconds, within 64 bits.

    Raises:
        WireFormatError: The duration does not fit 64 bits of nanoseconds.
    """
    if not MIN_DURATION_NS <= ns <= MAX_DURATION_NS:
        raise WireFormatError(f"a duration must fit 64 bits of nanoseconds, got {ns}")
    if ns == 0:
        return "0s"
    sign, ns = ("-", -ns) if ns < 0 else ("", ns)
    if ns < NS_PER_S:
        if ns < 1_000:
            return f"{sign}{ns}ns"
        if ns < 1_000_000:
            return f"{sign}{_decimal(ns, 1_000, 3)}\N{MICRO SIGN}s"
        return f"{sign}{_decimal(ns, 1_000_000, 6)}ms"
    minutes, rest = divmod(ns, 60 * NS_PER_S)
    text = f"{_decimal(rest, NS_PER_S, 9)}s"
    if minutes:
        hours, minutes = divmod(minutes, 60)
        text = f"{hours}h{minutes}m{text}" if hours else f"{minutes}m{text}"
    return sign + text


def parse_duration(text: str) -> int:
    """Return the nanoseconds of a duration in Go's notation: `90s`, `1h30m`, `-1.5h`, `0`.

    Fractions of a nanosecond are dropped.

    Raises:
        WireFormatError: The text is not a duration, or it does not fit 64 bits of nanoseconds.
    """
    rest = text
    negative = rest.startswith("-")
    if rest[:1] in ("-", "+"):
        rest = rest[1:]
    if rest == "0":
        return 0
    if not rest:
        raise _refused(text, "it is empty")
    total = 0
    position = 0
    while position < len(rest):
        part = _PART.match(rest, position)
        if part is None:  # pragma: no cover - the pattern matches anything
            raise _refused(text, "it is unreadable")
        whole, fraction, unit = part[1].lstrip("0"), part[2] or "", part[3]
        if not part[1] and not fraction:
            raise _refused(text, "a number is missing")
        if unit not in _UNITS_NS:
            raise _refused(text, "a unit is missing or unknown (ns, us, ms, s, m, h)")
        if len(whole) > _DIGITS:
            raise _refused(text, "it is too long")
        fraction = fraction[:_DIGITS]
        total += int(whole or "0") * _UNITS_NS[unit] + int(fraction or "0") * _UNITS_NS[unit] // 10 ** len(fraction)
        if total > MAX_DURATION_NS + negative:
            raise _refused(text, "it is too long")
        position = part.end()
    return -total if negative else total


def timedelta_of_ns(ns: int) -> timedelta:
    """Return a `timedelta` of nanoseconds, cut toward minus infinity to whole microseconds."""
    return timedelta(microseconds=ns // 1_000)


def _decimal(value: int, unit: int, places: int) -> str:
    whole, rest = divmod(value, unit)
    return f"{whole}.{rest:0{places}d}".rstrip("0") if rest else str(whole)


def _refused(text: str, why: str) -> WireFormatError:
    return WireFormatError(f"{text[:80]!r} is not a duration such as '1h30m': {why}")
