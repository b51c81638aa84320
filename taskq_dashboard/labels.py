"""Format numbers, sizes, durations and times as text. None becomes a dash."""

from datetime import UTC, datetime, timedelta

from taskq_core.settings.language import gettext
from taskq_core.views import labels as telling

NONE = "-"
"""Text for an unknown value."""
_UNITS = ("KiB", "MiB", "GiB", "TiB")


def number(value: int) -> str:
    """Return a number with thousands separators."""
    return f"{value:,}"


def percent(rate: float | None) -> str:
    """Return a share, 0 to 1, as a percentage."""
    return NONE if rate is None else f"{100 * rate:.1f} %"


def size(value: int | None) -> str:
    """Return an approximate size in bytes."""
    if value is None:
        return NONE
    if value < 1024:
        return f"{value} B"
    power = min((value.bit_length() - 1) // 10, len(_UNITS))
    return f"{value / 1024**power:.1f} {_UNITS[power - 1]}"


def span(value: timedelta | None) -> str:
    """Return a duration in its two largest units."""
    return NONE if value is None else telling.span(value)


def duration(value: timedelta | None) -> str:
    """Return the duration of a run, with milliseconds if it was short."""
    if value is None or value >= timedelta(seconds=10):
        return span(value)
    seconds = value.total_seconds()
    if seconds < 0.995:
        return gettext("%(count)s ms", count=f"{1000 * seconds:.3g}")
    return gettext("%(seconds)s s", seconds=f"{seconds:.2f}")


def moment(value: datetime | None) -> str:
    """Return a time in UTC."""
    return NONE if value is None else value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
