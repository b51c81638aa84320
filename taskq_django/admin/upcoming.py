"""The next firings of a periodic task, as its pages show them."""

from collections.abc import Sequence
from datetime import datetime, tzinfo
from typing import Any

from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _

from taskq_core import TaskQError
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_django.admin.formats import in_zone, render
from taskq_django.app import taskq
from taskq_django.models import PeriodicTask

SHOWN = 5
"""Number of firings shown."""


def local_time(moment: datetime, zone: tzinfo | None = None) -> str:
    """Return a time as text in a time zone, by default the user's. Seconds are omitted if they are 0."""
    local = in_zone(moment if timezone.is_aware(moment) else timezone.make_aware(moment), zone)
    time = f"{local:%H:%M:%S}" if local.second else f"{local:%H:%M}"
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {time} {local.tzname()}"


def next_firings(obj: PeriodicTask, *, folded: bool = False) -> Any:
    """Return the next firings of a periodic task in its time zone and the user's, or the reason why there are none.

    Args:
        obj: The periodic task.
        folded: Show only the first firing until the user clicks on it.
    """
    try:
        if not obj.enabled:
            return _("disabled")
        moments = _moments(obj)
        zone = obj.entry.time_zone(taskq.settings.time_zone)
    except (TaskQError, ValueError, TypeError, OverflowError) as error:
        return format_html('<span class="taskq-trouble">{}</span>', str(error))
    if moments is None:
        return _("unknown: no running scheduler reports it")
    if not moments:
        return _("never again")
    mine = timezone.get_current_timezone()
    agree = zone is None or all(in_zone(each, zone).utcoffset() == in_zone(each, mine).utcoffset() for each in moments)
    rows = [(None if agree else local_time(each, zone), local_time(each)) for each in moments]
    return render("upcoming.html", rows=rows, zone=None if agree else zone, mine=mine, folded=folded)


def _moments(obj: PeriodicTask) -> Sequence[datetime] | None:
    """Return the next firings. None: only a running scheduler could say when an interval of the code has started."""
    entry = obj.entry
    if obj.code_entry is None or entry.start is not None or entry.time_zone() is not None:
        return obj.upcoming(SHOWN)
    first = obj.next_run_at
    if first is None or first <= utc_datetime(SYSTEM_CLOCK.time()):
        return None
    return [first, *obj.entry.upcoming(first, SHOWN - 1)]
