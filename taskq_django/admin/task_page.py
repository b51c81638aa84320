"""How what is known of a task is written on its page. Whatever comes from Redis is escaped, here or by the template."""

from datetime import datetime, timedelta, tzinfo

import msgspec
from django.utils import formats, timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from taskq_core import TaskInfo
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime

SHOWN_BYTES = 64 * 1024
"""Most bytes of a payload or a result that a page shows."""


def moment(value: datetime | None) -> str:
    """Return a time as people here write it, to the second, in the current time zone; in UTC at the ends of time."""
    if value is None:
        return ""
    local = in_zone(value)
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S} {local.tzname()}"


def in_zone(value: datetime, zone: tzinfo | None = None) -> datetime:
    """Return an aware time by the clock of a zone, that of the user if none is given; as it is at the ends of time."""
    try:
        return value.astimezone(zone or timezone.get_current_timezone())
    except OverflowError:  # it is in the year 10000 there, or before the first
        return value


def roughly(value: datetime | None) -> str:
    """Return how far a time is from now, in its largest unit."""
    if value is None:
        return ""
    now = utc_datetime(SYSTEM_CLOCK.time())  # aware, also in a project without time zones
    if abs(value - now) < timedelta(minutes=1):
        count = round(abs(value - now).total_seconds())
        if value > now:
            return ngettext("in %(count)d second", "in %(count)d seconds", count) % {"count": count}
        return ngettext("%(count)d second ago", "%(count)d seconds ago", count) % {"count": count}
    if value > now:
        return _("in %(span)s") % {"span": timeuntil(value, depth=1)}
    return _("%(span)s ago") % {"span": timesince(value, depth=1)}


def clock_span(value: timedelta | None) -> str:
    """Return a span of time, for example `1:30:00`."""
    return "" if not value else str(value)


def blob(data: bytes) -> tuple[str, str]:
    """Return bytes as text to show, and a note on it. JSON is laid out, other text stays as it is."""
    if not data:
        return "", ""
    shown = data[:SHOWN_BYTES]
    note = ""
    if len(data) > SHOWN_BYTES:
        note = _("The first %(shown)d of %(size)d bytes.") % {"shown": SHOWN_BYTES, "size": len(data)}
    else:
        try:
            return msgspec.json.format(data, indent=2).decode(), ""
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    try:
        return shown.decode("utf-8", "strict" if shown is data else "ignore"), note
    except UnicodeDecodeError:
        return shown.decode("utf-8", "backslashreplace"), note or _("Not text; other bytes are shown as \\x...")


def retries(task: TaskInfo) -> str:
    """Return how often a task was retried, of how often it may be. Its first run is not among them."""
    return _("%(done)d of %(most)d") % {"done": task.retried, "most": task.max_retry}


def when(value: datetime | None) -> SafeString | str:
    """Return about how far a time is from now, with the time itself behind it."""
    if value is None:
        return ""
    text = '<time datetime="{}" title="{}">{}</time>'
    return format_html(text, value.isoformat(), moment(value), roughly(value))


def block(data: bytes | str) -> SafeString | str:
    """Return text whose line breaks count, JSON laid out, and a note below it if it is cut or no text."""
    text, note = (data, "") if isinstance(data, str) else blob(data)
    if not text:
        return ""
    shown = format_html('<pre class="taskq-block">{}</pre>', text)
    return format_html('{}<div class="help">{}</div>', shown, note) if note else shown


def pairs(values: dict[str, str]) -> SafeString | str:
    """Return names and values, one pair a line."""
    if not values:
        return ""
    rows = [(name, value) for name, value in sorted(values.items())]
    return format_html(
        '<table class="taskq-pairs"><tbody>{}</tbody></table>',
        format_html_join("", '<tr><th scope="row">{}</th><td>{}</td></tr>', rows),
    )
