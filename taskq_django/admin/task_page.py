"""The page of one task, in the form that the admin's own templates draw.

`Section` and `Row` are to Django's `fieldset.html` what a form's fieldset and its read-only fields are. Whatever comes
from a task is escaped, here or by the template.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import msgspec
from django.utils import formats, timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.timesince import timesince, timeuntil
from django.utils.translation import gettext as _

from taskq_core import TaskInfo, TaskState
from taskq_core.clock import SYSTEM_CLOCK, utc_datetime
from taskq_core.inspector import UnreadableTask
from taskq_django.admin.task_list import STATE_NAMES

SHOWN_BYTES = 64 * 1024
"""Most bytes of a payload or a result that a page shows."""


@dataclass(slots=True)
class _Field:
    name: str
    help_text: str = ""
    is_hidden: bool = False
    id_for_label: str = ""


class Row:
    """A line with one read-only value."""

    errors = ""
    has_visible_field = True
    is_readonly = True
    is_checkbox = False
    is_fieldset = False

    def __init__(self, name: str, label: str, contents: str, *, help_text: str = "") -> None:
        self.field = _Field(name, help_text)
        self.fields = [self]
        self.label_tag = format_html("<label>{}:</label>", capfirst(label))
        self.contents = contents

    def __iter__(self) -> Iterator["Row"]:
        yield self


@dataclass(slots=True)
class Section:
    """Lines under one heading."""

    name: str | None = None
    rows: list[Row] = field(default_factory=list)
    classes: str = ""
    description: str = ""
    is_collapsible: bool = False

    def add(self, name: str, label: str, contents: str, *, help_text: str = "") -> None:
        """Add a line, unless there is nothing to say."""
        if contents:
            self.rows.append(Row(name, label, contents, help_text=help_text))

    def __iter__(self) -> Iterator[Row]:
        return iter(self.rows)


def sections_of(task: TaskInfo | UnreadableTask) -> list[Section]:
    """Return what the page says of a task."""
    if isinstance(task, UnreadableTask):
        return _unreadable(task)
    return [each for each in (_main(task), _times(task), _data(task), _headers(task)) if each.rows]


def moment(value: datetime | None) -> str:
    """Return a time as people here write it, to the second, in the current time zone."""
    if value is None:
        return ""
    local = timezone.localtime(value)
    return f"{formats.date_format(local, 'DATE_FORMAT')}, {local:%H:%M:%S} {local.tzname()}"


def roughly(value: datetime | None) -> str:
    """Return how far a time is from now, in its largest unit."""
    if value is None:
        return ""
    if value > utc_datetime(SYSTEM_CLOCK.time()):  # aware, also in a project without time zones
        return _("in %(span)s") % {"span": timeuntil(value, depth=1)}
    return _("%(span)s ago") % {"span": timesince(value, depth=1)}


def span(value: timedelta | None) -> str:
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


def _main(task: TaskInfo) -> Section:
    section = Section()
    section.add("name", _("name"), task.name)
    section.add("id", _("id"), task.id)
    section.add("queue", _("queue"), task.queue)
    section.add("state", _("state"), str(STATE_NAMES[task.state]))
    section.add("retries", _("retries"), retries(task))
    section.add("last_error", _("last error"), _block(task.last_error))
    section.add("last_failed_at", _("failed at"), moment(task.last_failed_at))
    section.add("group", _("group"), task.group)
    return section


def retries(task: TaskInfo) -> str:
    """Return how often a task was retried, of how often it may be. Its first run is not among them."""
    return _("%(done)d of %(most)d") % {"done": task.retried, "most": task.max_retry}


def _times(task: TaskInfo) -> Section:
    section = Section(_("Times"))
    label = _("next attempt") if task.state is TaskState.RETRY else _("starts")
    section.add("next_run_at", label, moment(task.next_run_at))
    section.add(
        "lease_expires_at",
        _("lease ends"),
        moment(task.lease_expires_at),
        help_text=_("Its worker extends the lease while it runs. When the lease has ended, the task counts as lost."),
    )
    section.add("completed_at", _("completed"), moment(task.completed_at))
    section.add("archived_at", _("archived"), moment(task.archived_at))
    section.add("expires_at", _("deleted after"), moment(task.expires_at))
    section.add("timeout", _("timeout"), span(task.timeout))
    section.add("deadline", _("deadline"), moment(task.deadline))
    section.add("retention", _("kept after success"), span(task.retention))
    return section


def _data(task: TaskInfo) -> Section:
    section = Section(_("Data"))
    for name, label, data in (("payload", _("arguments"), task.payload), ("result", _("result"), task.result)):
        text, note = blob(data)
        section.add(name, label, _block(text), help_text=note)
    return section


def _headers(task: TaskInfo) -> Section:
    section = Section(_("Headers"))
    for name, value in sorted(task.headers.items()):
        section.rows.append(_plain_row(name, value))
    return section


def _plain_row(name: str, value: str) -> Row:
    row = Row("header", "", value)
    row.label_tag = format_html("<label>{}:</label>", name)  # as it is spelt, without a capital
    return row


def _unreadable(task: UnreadableTask) -> list[Section]:
    section = Section()
    section.add("id", _("id"), task.id)
    section.add("queue", _("queue"), task.queue)
    section.add("state", _("state"), str(STATE_NAMES[task.state]))
    section.add("problem", _("problem"), task.problem)
    raw = task.message[:SHOWN_BYTES].hex(" ", -2)
    section.add("message", _("stored bytes"), _block(raw))
    return [section]


def _block(text: str) -> SafeString | str:
    """Text whose line breaks count."""
    return format_html('<pre class="taskq-block">{}</pre>', text) if text else ""
