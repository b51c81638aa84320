"""Format states, numbers, times, bytes and links for the admin's pages.

Text from Redis is escaped here or by templates.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import datetime, timedelta, tzinfo
from typing import Any

import msgspec
from django.contrib.admin.utils import quote, unquote
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, pgettext, trans_real

from taskq_core import TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.handles.waits import TaskWait
from taskq_core.settings.language import translated_with
from taskq_core.views import labels
from taskq_django.models import Queue, Task, Workflow

SHOWN_BYTES = 64 * 1024
"""Maximum number of bytes of a payload or a result on a page."""
ARGUMENTS_CHARS = 60
"""Maximum number of characters of arguments in a list."""
HIDDEN = gettext_lazy("Hidden: you need the permission “Can view arguments and results of tasks”.")
"""Text in place of data that the user may not see."""


def sees_payloads(request: HttpRequest) -> bool:
    """Return whether the user may see arguments, results and other data of tasks that may contain arguments."""
    return bool(request.user.has_perm("taskq_django.view_payload"))


def state_name(state: TaskState) -> str:
    """Return the name of a state of tasks."""
    return pgettext("task state", state.value)


def key_of(queue: str, name: str) -> str:
    """Return the key of a task or a workflow: its queue and its id, separated by the first slash."""
    return f"{quote(queue)}/{name}"


def parts_of(key: str) -> tuple[str, str]:
    """Return the queue and the id in a key."""
    queue, _slash, name = key.partition("/")
    return unquote(queue), name


def render(template: str, **context: Any) -> SafeString:
    """Render a template of the admin's pages."""
    return render_to_string(f"admin/taskq_django/{template}", context)


# --- figures ----------------------------------------------------------------------------------------------------------


def number(value: int | None) -> str:
    """Return a number in the active language, "" for None."""
    return "" if value is None else formats.number_format(value, use_l10n=True, force_grouping=True)


def per_cent(rate: float | None) -> str:
    """Return a share from 0 to 1 as a percentage, "" for None."""
    return "" if rate is None else _("%(number)s %%") % {"number": _with_tenths(100 * rate)}


def _with_tenths(value: float) -> str:
    return formats.number_format(round(value, 1), 1)  # rounds first, because number_format truncates decimals


def size(value: int | None) -> SafeString | str:
    """Return a size in bytes on one line, "" for None."""
    return "" if value is None else nowrap(filesizeformat(value))


def nowrap(text: str) -> SafeString | str:
    """Return a text that stays on one line."""
    return format_html('<span class="nowrap">{}</span>', text) if text else ""


def in_active_language() -> AbstractContextManager[None]:
    """Return a context manager in which texts of taskq_core are in Django's active language."""
    return translated_with(trans_real.catalog())


# --- times ------------------------------------------------------------------------------------------------------------


def span(value: timedelta | None) -> str:
    """Return a time span in its two largest units, "" for None."""
    if value is None:
        return ""
    with in_active_language():
        return labels.span(value, _with_tenths)


def waiting(wait: TaskWait | None) -> str:
    """Return what a task waits for, "" for None."""
    with in_active_language():
        return labels.wait_text(wait, span)


def nowrap_span(value: timedelta | None) -> SafeString | str:
    """Return a time span on one line, "" for None."""
    return nowrap(span(value))


def in_zone(value: datetime, zone: tzinfo | None = None) -> datetime:
    """Return an aware time in a time zone, by default the user's. Return it unchanged at the limits of `datetime`."""
    try:
        return value.astimezone(zone or timezone.get_current_timezone())
    except OverflowError:  # the year would be 0 or 10000 in that zone
        return value


def moment(value: datetime | None) -> str:
    """Return a time to the second, in the user's time zone."""
    if value is None:
        return ""
    local = in_zone(value)
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S} {local.tzname()}"


def roughly(value: datetime) -> str:
    """Return how long ago or ahead a time is, in the largest unit, such as "3 minutes ago"."""
    now = utc_datetime(SYSTEM_CLOCK.time())  # an aware time, even in a project without time zones
    if abs(value - now) < timedelta(minutes=1):
        count = round(abs(value - now).total_seconds())
        if value > now:
            return ngettext("in %(count)d second", "in %(count)d seconds", count) % {"count": count}
        return ngettext("%(count)d second ago", "%(count)d seconds ago", count) % {"count": count}
    if value > now:
        return _("in %(span)s") % {"span": timeuntil(value, depth=1)}
    return _("%(span)s ago") % {"span": timesince(value, depth=1)}


def when(value: datetime | None) -> SafeString | str:
    """Return how long ago or ahead a time is, with the exact time as HTML title; "" for None."""
    if value is None:
        return ""
    text = '<time datetime="{}" title="{}">{}</time>'
    return format_html(text, value.isoformat(), moment(value), roughly(value))


def exactly(value: datetime | None) -> SafeString | str:
    """Return a time to the second, and how long ago or ahead it is; "" for None."""
    if value is None:
        return ""
    return format_html('{} <span class="quiet">{}</span>', moment(value), roughly(value))


# --- bytes ------------------------------------------------------------------------------------------------------------


def blob(data: bytes) -> tuple[str, str]:
    """Return bytes as text, with JSON indented, and a note if the text is incomplete or not UTF-8."""
    if len(data) > SHOWN_BYTES:
        return data[:SHOWN_BYTES].decode("utf-8", "ignore"), cut_note(SHOWN_BYTES, len(data))
    try:
        return msgspec.json.format(data, indent=2).decode(), ""
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return data.decode(), ""
    except UnicodeDecodeError:
        return data.decode("utf-8", "backslashreplace"), _("Not text; other bytes are shown as \\x...")


def cut_note(shown: int, total: int) -> str:
    """Return a note that only the beginning of a text is shown, "" if all of it is."""
    return _("The first %(shown)d of %(size)d bytes.") % {"shown": shown, "size": total} if shown < total else ""


def block(data: bytes | str) -> SafeString | str:
    """Return preformatted text, with a note below it if it is cut or binary. Return "" for no bytes."""
    text, note = (data, "") if isinstance(data, str) else blob(data)
    if not text:
        return ""
    shown = format_html('<pre class="taskq-block">{}</pre>', text)
    return format_html('{}<div class="help">{}</div>', shown, note) if note else shown


def arguments_line(payload: bytes) -> SafeString | str:
    """Return the beginning of arguments for a list. The page of a task shows them in full."""
    text = Truncator(payload[: 4 * ARGUMENTS_CHARS + 1].decode("utf-8", "replace")).chars(ARGUMENTS_CHARS)
    return format_html('<code class="taskq-arguments">{}</code>', text) if text else ""


# --- links ------------------------------------------------------------------------------------------------------------


class Links:
    """Links to pages of this admin site. A link to a page that the user may not see is plain text.

    Args:
        request: Request of the user.
        site: The admin site.

    Attributes:
        sees_tasks: Whether the user may view tasks, with their errors.
        sees_payloads: Whether the user may view tasks with their arguments and results.
    """

    def __init__(self, request: HttpRequest, site: Any) -> None:
        self._site = site
        self._viewable = [
            model
            for model in (Task, Queue, Workflow)
            if site.is_registered(model) and site.get_model_admin(model).has_view_permission(request)
        ]
        self.sees_tasks = Task in self._viewable
        self.sees_payloads = self.sees_tasks and sees_payloads(request)

    def tasks(self, text: object, **query: str) -> SafeString | str:
        """Return a link to a list of tasks."""
        return self._link(text, Task, query=query)

    def task(self, text: object, queue: str, task_id: str) -> SafeString | str:
        """Return a link to the page of a task."""
        return self._link(text, Task, key_of(queue, task_id))

    def queue(self, name: str) -> SafeString | str:
        """Return a link to the page of a queue."""
        return self._link(name, Queue, name) if name else ""

    def workflow(self, text: object, queue: str, workflow_id: str) -> SafeString | str:
        """Return a link to the page of a workflow."""
        return self._link(text, Workflow, key_of(queue, workflow_id))

    def workflows(self, text: object, **query: str) -> SafeString | str:
        """Return a link to a list of workflows, "" for a user who may not view them."""
        return self._link(text, Workflow, query=query) if Workflow in self._viewable else ""

    def _link(
        self, text: object, model: Any, key: str | None = None, query: Mapping[str, str] | None = None
    ) -> SafeString | str:
        if model not in self._viewable:
            return str(text)
        page, args = ("changelist", ()) if key is None else ("change", (quote(key),))
        name = f"admin:taskq_django_{model._meta.model_name}_{page}"
        address = reverse(name, args=args, current_app=self._site.name)
        return format_html('<a href="{}{}">{}</a>', address, f"?{urlencode(query)}" if query else "", text)
