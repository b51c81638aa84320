"""Format and parse times of tasks."""

from datetime import UTC, datetime

from taskq_core.settings.language import gettext, marked
from taskq_core.views import utc_now

_UNITS = (
    (86_400, marked("%(count)s d")),
    (3_600, marked("%(count)s h")),
    (60, marked("%(count)s min")),
    (1, marked("%(count)s s")),
)


def roughly(value: datetime | None) -> str:
    """Return the time from now until or since a moment, in its largest unit: `in 3 min`, `2 d ago`."""
    if value is None:
        return ""
    seconds = (value - utc_now()).total_seconds()
    unit, word = next(((unit, word) for unit, word in _UNITS if abs(seconds) >= unit), _UNITS[-1])
    text = gettext(word, count=round(abs(seconds) // unit))
    return gettext("in %(span)s", span=text) if seconds > 0 else gettext("%(span)s ago", span=text)


def in_utc(value: str) -> datetime | None:
    """Parse the value of a time field in a form. The field has no time zone and means UTC. None if it is not valid."""
    try:
        return datetime.fromisoformat(value).replace(tzinfo=UTC)
    except ValueError:
        return None
