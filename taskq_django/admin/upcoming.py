"""When a periodic task fires next, as people read it: by the clock of its time zone, and by that of the user."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, tzinfo
from typing import Any

from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.translation import gettext as _

from taskq_core import TaskQError
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_django.admin.task_page import in_zone
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask

SHOWN = 5
"""Firings that are shown ahead."""


def at(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a moment with its time zone, the one given or that of the user; seconds only where there are some."""
    local = in_zone(moment if timezone.is_aware(moment) else timezone.make_aware(moment), zone)
    time = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {time} {local.tzname()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """The next firings of a periodic task, or why there are none."""

    moments: Sequence[datetime] = ()
    zone: tzinfo | None = None
    """Time zone by whose clock it fires; None for an interval, or where it agrees with that of the user."""
    note: Any = ""

    def table(self) -> Any:
        """Return the firings as a table, in both time zones where there are two."""
        zones = [None] if self.zone is None else [self.zone, None]
        names = [str(each or timezone.get_current_timezone_name()) for each in zones]
        notes = [""] if self.zone is None else ["", _(" (your time zone)")]
        heads = format_html_join("", '<th scope="col">{}{}</th>', zip(names, notes, strict=True))
        rows = [
            (format_html_join("", "<td>{}</td>", ((at(moment, zone),) for zone in zones)),) for moment in self.moments
        ]
        body = format_html_join("", "<tr>{}</tr>", rows)
        return format_html(
            '<table class="taskq-upcoming"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>', heads, body
        )


def look_ahead(obj: PeriodicTask) -> Ahead:
    """Return when a periodic task fires next."""
    try:
        if not obj.enabled:
            return Ahead(note=_("disabled"))
        moments = _moments(obj)
        zone = obj.entry.time_zone(taskq.settings.time_zone)
    except (TaskQError, ValueError, TypeError, OverflowError) as error:
        return Ahead(note=format_html('<span class="taskq-trouble">{}</span>', str(error)))
    if moments is None:
        return Ahead(note=_("not known: no scheduler tells of it"))
    if not moments:
        return Ahead(note=_("never again"))
    mine = timezone.get_current_timezone()
    agree = zone is None or all(in_zone(each, zone).utcoffset() == in_zone(each, mine).utcoffset() for each in moments)
    return Ahead(moments=moments, zone=None if agree else zone)


def _moments(obj: PeriodicTask) -> list[datetime] | None:
    """Return the next firings. None: only a scheduler can say from when an interval of the code is counted."""
    entry = obj.entry
    if obj.code_entry is None or entry.start is not None or entry.time_zone() is not None:
        return obj.upcoming(SHOWN)
    first = obj.next_run_at
    if first is None or first <= utc_datetime(SYSTEM_CLOCK.time()):
        return None
    return [first, *obj.entry.upcoming(first, SHOWN - 1)]
