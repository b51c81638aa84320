"""What the admin says of a workflow: the columns of the list, and the lines of its own page."""

from collections.abc import Mapping
from typing import Any

from django.contrib import admin
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import Truncator
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext_lazy

from taskq_core.views import MemberRow, StepDetail, has_task
from taskq_core.workflow import StepInfo, WorkflowState
from taskq_django.admin import workflow_labels as words
from taskq_django.admin.base import MixinBase
from taskq_django.admin.labels import Links, number
from taskq_django.admin.task_page import block, moment, roughly, when

STEP_VAR, STEPS_PAGE_VAR, MEMBERS_PAGE_VAR, FAILED_VAR = "step", "steps", "members", "failed"
_PARTS = {STEP_VAR: "taskq-step", STEPS_PAGE_VAR: "taskq-steps", MEMBERS_PAGE_VAR: "taskq-step"}
STEPS_SHOWN = 100
"""Most steps of a workflow that its page lists at once."""
MEMBERS_SHOWN = 50
"""Most members of a group that a page lists at once."""
ERROR_CHARS = 300
"""Most characters of an error or a result that a table shows."""


class WorkflowColumns(MixinBase):
    """Columns and lines. A row has a `record` and `links`.

    On its own page it has besides a `detail`, None with a `problem` if it is damaged, what is `asked` of the page, the
    `step` that is asked for, and its `action_links`.
    """

    @admin.display(description=_("workflow"))
    def title(self, workflow: Any) -> SafeString | str:
        """Its name, and its id behind it."""
        record = workflow.record
        if not record.name:
            return str(record.id)
        short = Truncator(record.id).chars(12)
        return format_html('{} <span class="quiet nowrap" title="{}">{}</span>', record.name, record.id, short)

    @admin.display(description=_("state"))
    def state(self, workflow: Any) -> SafeString:
        """How it stands."""
        return format_html('<span class="nowrap">{}</span>', words.workflow_state(workflow.record.state))

    @admin.display(description=_("steps"), empty_value="-")
    def progress(self, workflow: Any) -> SafeString | str:
        """How many of its steps have ended."""
        record = workflow.record
        if record.state is WorkflowState.DAMAGED:
            return ""
        label = _now("Steps that have ended")
        return words.progress(record.steps_ended, record.steps, record.steps_failed, label=label)

    @admin.display(description=_("home queue"))
    def home(self, workflow: Any) -> SafeString | str:
        """The queue that its state is kept beside."""
        links: Links = workflow.links
        return links.queue(workflow.record.queue)

    @admin.display(description=pgettext_lazy("time", "started"), empty_value="-")
    def started(self, workflow: Any) -> SafeString | str:
        """When it began."""
        return when(workflow.record.created_at)

    @admin.display(description=pgettext_lazy("time", "ended"), empty_value="-")
    def ended(self, workflow: Any) -> SafeString | str:
        """When it ended."""
        return when(workflow.record.ended_at)

    # --- its own page -------------------------------------------------------------------------------------------------

    @admin.display(description=_("name"))
    def name(self, workflow: Any) -> str:
        """Its name."""
        return workflow.record.name or "-"

    @admin.display(description=_("id"))
    def workflow_id(self, workflow: Any) -> str:
        """The whole id."""
        return str(workflow.record.id)

    @admin.display(description=pgettext_lazy("time", "started"))
    def started_at(self, workflow: Any) -> SafeString | str:
        """When it began, to the second."""
        return _moment(workflow.record.created_at)

    @admin.display(description=pgettext_lazy("time", "ended"))
    def ended_at(self, workflow: Any) -> SafeString | str:
        """When it ended, to the second."""
        return _moment(workflow.record.ended_at)

    @admin.display(description=_("problem"))
    def problem(self, workflow: Any) -> str:
        """Why it cannot be read."""
        return str(workflow.problem)

    @admin.display(description=_("actions"))
    def do(self, workflow: Any) -> SafeString | str:
        """What can be done to it."""
        links = workflow.action_links
        text = format_html_join(" ", '<a role="button" class="button taskq-action" href="{}">{}</a>', links)
        return text or "-"

    @admin.display(description=_("graph"))
    def graph(self, workflow: Any) -> SafeString:
        """Its steps as a drawing."""
        return words.drawing(workflow.detail, workflow.asked.get(STEP_VAR, ""))

    @admin.display(description=_("all steps"))
    def steps(self, workflow: Any) -> SafeString:
        """Its steps as a table."""
        steps = workflow.detail.graph.steps
        page = _page(workflow.asked, STEPS_PAGE_VAR, len(steps), STEPS_SHOWN)
        first = (page - 1) * STEPS_SHOWN
        shown = steps[first : first + STEPS_SHOWN]
        sees_tasks = workflow.links.sees_tasks  # errors hold what tasks were called with
        heads = [_now("Step"), _now("State"), _now("After"), _now("Task"), _now("Queue"), _now("Ended")]
        rows = [
            (
                _step_link(workflow.asked, step.name),
                _state(step),
                words.after(step),
                _task(workflow, step, step.queue, step.task or "-"),
                workflow.links.queue(step.queue) or "-",
                when(step.ended_at) or "-",
                *((_short(step.error),) if sees_tasks else ()),
            )
            for step in shown
        ]
        table = words.table([*heads, *([_now("Error")] if sees_tasks else [])], rows, _now("Steps"))
        pager = _pager(workflow.asked, STEPS_PAGE_VAR, page, len(shown), len(steps), STEPS_SHOWN)
        return format_html('<div id="taskq-steps" data-taskq-live>{}{}</div>', table, pager)

    @admin.display(description=_("step"))
    def step(self, workflow: Any) -> SafeString | str:
        """The step that is asked for: what it returned, or the members of a group."""
        found: StepDetail | None = workflow.step
        if found is None:
            text = _now("There is no step “%(step)s” in it.") % {"step": workflow.asked[STEP_VAR]}
            return format_html('<div id="taskq-step" data-taskq-live>{}</div>', text)
        step = found.step
        parts: list[Any] = [
            format_html("<p><strong>{}</strong> {}</p>", step.name, _state(step)),
            format_html("<p>{}</p>", _task(workflow, step, step.queue, step.task)) if step.task else "",
        ]
        if workflow.links.sees_tasks:
            parts += [block(step.error), block(found.result), _cut(len(found.result), found.result_size)]
        if step.members is not None:
            parts.append(self._members(workflow, found))
        text = format_html_join("", "{}", ((part,) for part in parts))
        return format_html('<div id="taskq-step" class="taskq-step" data-taskq-live>{}</div>', text)

    def _members(self, workflow: Any, found: StepDetail) -> SafeString:
        sees_tasks, total = workflow.links.sees_tasks, found.step.members or 0
        if not total:
            return format_html("<p>{}</p>", _now("It has no members (yet)."))
        page, only_failed = workflow.members_page, FAILED_VAR in workflow.asked
        heads = [_now("Number"), _now("State"), _now("Task"), _now("Queue")]
        rows = [
            (
                number(each.number),
                words.step_state(each),
                _task(workflow, each, each.queue, each.task_id),
                workflow.links.queue(each.queue),
                *((_outcome(each),) if sees_tasks else ()),
            )
            for each in found.members
        ]
        table = words.table([*heads, *([_now("Error or result")] if sees_tasks else [])], rows, _now("Members"))
        pager = _pager(workflow.asked, MEMBERS_PAGE_VAR, page, len(rows), total, MEMBERS_SHOWN)
        if only_failed:
            facts = {"shown": number(len(rows)), "failed": number(found.step.failed)}
            pager = _choice(workflow.asked, "", _now("All members"), _now("%(shown)s of %(failed)s failed") % facts)
        elif found.step.failed:
            text = _now("Those that have failed (%(failed)s)") % {"failed": number(found.step.failed)}
            return format_html("{}{}{}", _choice(workflow.asked, "1", text), table, pager)
        return format_html("{}{}", pager, table) if only_failed else format_html("{}{}", table, pager)


def asked_of(query: Mapping[str, str]) -> dict[str, str]:
    """Return what an address asks of the page of a workflow."""
    return {name: query[name] for name in (STEP_VAR, STEPS_PAGE_VAR, MEMBERS_PAGE_VAR, FAILED_VAR) if query.get(name)}


def members_page(asked: Mapping[str, str], total: int) -> int:
    """Return which page of the members of a group is asked for."""
    return _page(asked, MEMBERS_PAGE_VAR, total, MEMBERS_SHOWN)


def _page(asked: Mapping[str, str], name: str, total: int, rows: int) -> int:
    """Return the number of the page that is asked for, from 1; one beyond the last is the last."""
    text = asked.get(name, "")
    asked_page = int(text) if text.isascii() and text.isdecimal() and len(text) <= 12 else 1
    return min(max(asked_page, 1), max(1, -(-total // rows)))


def _pager(asked: Mapping[str, str], name: str, page: int, shown: int, total: int, rows: int) -> SafeString | str:
    last = max(1, -(-total // rows))
    links = []
    for label, to in (
        (_now("First"), 1),
        (_now("Previous"), page - 1),
        (_now("Next"), page + 1),
        (_now("Last"), last),
    ):
        if 1 <= to <= last and to != page:
            links.append((_address(asked, _PARTS[name], **{name: str(to)}), label))
    return words.pages((page - 1) * rows, shown, total, links)


def _address(asked: Mapping[str, str], part: str, **changes: str) -> str:
    """Return the address of the same page with something else asked of it, at the part of it that tells that."""
    return f"?{urlencode({**asked, **changes})}#{part}"


def _choice(asked: Mapping[str, str], failed: str, label: str, said: str = "") -> SafeString:
    """Return a link to the members that have failed, or to all."""
    kept = {key: value for key, value in asked.items() if key in (STEP_VAR, STEPS_PAGE_VAR)}
    address = _address(kept, _PARTS[STEP_VAR], **({FAILED_VAR: failed} if failed else {}))
    return format_html('<p class="taskq-pages">{} <a href="{}">{}</a></p>', said, address, label)


def _step_link(asked: Mapping[str, str], name: str) -> SafeString:
    kept = {key: value for key, value in asked.items() if key == STEPS_PAGE_VAR}
    current = SafeString(' aria-current="true"' if asked.get(STEP_VAR) == name else "")
    return format_html('<a href="{}"{}>{}</a>', _address(kept, _PARTS[STEP_VAR], **{STEP_VAR: name}), current, name)


def _state(step: StepInfo) -> SafeString:
    state = words.step_state(step)
    if step.members is None:
        return state
    bar = words.progress(step.succeeded + step.failed, step.members, step.failed, label=_now("Members that have ended"))
    return format_html("{} {}", state, bar)


def _task(workflow: Any, each: StepInfo | MemberRow, queue: str, text: str) -> SafeString | str:
    return workflow.links.task(text, queue, each.task_id) if has_task(each) else text


def _outcome(member: MemberRow) -> SafeString | str:
    if member.error:
        return _short(member.error)
    if not member.result:
        return ""
    return format_html("<code>{}</code>", Truncator(member.result.decode("utf-8", "replace")).chars(ERROR_CHARS))


def _short(error: str) -> SafeString | str:
    line = Truncator(error.partition("\n")[0]).chars(ERROR_CHARS)
    return format_html('<span class="quiet taskq-error">{}</span>', line) if line else ""


def _cut(shown: int, size: int) -> SafeString | str:
    if size <= shown:
        return ""
    return format_html(
        '<div class="help">{}</div>', _now("The first %(shown)d of %(size)d bytes.") % {"shown": shown, "size": size}
    )


def _moment(value: Any) -> SafeString | str:
    return format_html('{} <span class="quiet">{}</span>', moment(value), roughly(value)) if value else "-"
