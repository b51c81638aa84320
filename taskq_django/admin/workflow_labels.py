"""How workflows and their steps stand, in words and colours. Whatever comes from Redis is escaped."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, pgettext_lazy

from taskq_core.views import MemberRow, WorkflowDetail, graph_svg
from taskq_core.workflow import StepInfo, StepState, WorkflowState
from taskq_django.admin.labels import number
from taskq_django.admin.labels import step_state as step_words

WORKFLOW_STATES: Mapping[WorkflowState, Any] = {
    WorkflowState.RUNNING: pgettext_lazy("workflow state", "running"),
    WorkflowState.SUCCEEDED: pgettext_lazy("workflow state", "succeeded"),
    WorkflowState.FAILED: pgettext_lazy("workflow state", "failed"),
    WorkflowState.CANCELLED: pgettext_lazy("workflow state", "cancelled"),
    WorkflowState.DAMAGED: pgettext_lazy("workflow state", "damaged"),
}
_COLOURS = {WorkflowState.RUNNING: StepState.STARTED, WorkflowState.DAMAGED: StepState.FAILED}
_PREFIX = "taskq-"
AFTER_SHOWN = 20
"""Most steps that a table names of those that a step comes after; what handles failures may come after all."""


def workflow_state(state: WorkflowState) -> SafeString:
    """Return how a workflow stands, with its colour."""
    return format_html(
        '{} <span class="taskq-state-{}">{}</span>', _mark(_COLOURS.get(state, state)), state, WORKFLOW_STATES[state]
    )


def step_state(step: StepInfo | MemberRow) -> SafeString:
    """Return the state of a step or of a member of a group, with its color."""
    return format_html('<span class="nowrap">{} {}</span>', _mark(step.state), step_words(step))


def _mark(state: str) -> SafeString:
    return format_html(
        '<svg class="taskq-swatch" viewBox="0 0 10 10" aria-hidden="true">'
        '<rect class="taskq-step-{}" width="10" height="10" rx="2"/></svg>',
        state,
    )


def progress(done: int, most: int, failed: int, *, label: str) -> SafeString:
    """Return how many of so many have ended, and a bar of that."""
    text = _("%(done)s of %(most)s") % {"done": number(done), "most": number(most)}
    if failed:
        text = _("%(progress)s, %(failed)s failed") % {"progress": text, "failed": number(failed)}
    bar = '<progress value="{}" max="{}" aria-label="{}"></progress> <span class="nowrap">{}</span>'
    return format_html(bar, done, max(most, 1), label, text)


def members(step: StepInfo) -> str:
    """Return how many members of a group have ended; nothing for a step."""
    if step.members is None:
        return ""
    facts = {"done": number(step.succeeded + step.failed), "most": number(step.members), "failed": number(step.failed)}
    return (_("%(done)s/%(most)s, %(failed)s failed") if step.failed else "%(done)s/%(most)s") % facts


def after(step: StepInfo) -> SafeString | str:
    """Return what a step comes after."""
    texts = {"failure": _("failure of %(step)s"), "end": _("end of %(step)s")}
    parents = list(step.after.items())
    names = [(texts.get(when) or "%(step)s") % {"step": name} for name, when in parents[:AFTER_SHOWN]]
    more = len(parents) - AFTER_SHOWN
    if more > 0:
        names.append(ngettext("and %(more)d more", "and %(more)d more", more) % {"more": more})
    listed = format_html_join("", "<li>{}</li>", ((name,) for name in names))
    return format_html('<ul class="taskq-running">{}</ul>', listed) if listed else "-"


def drawing(detail: WorkflowDetail, shown: str) -> SafeString:
    """Return the graph of a workflow, or why there is none."""
    info = detail.graph.info
    if detail.drawing is None:
        count = number(len(detail.graph.steps))
        text = _("%(count)s steps, with what is between them, are too much for a drawing; the table has them all.")
        return format_html('<div id="taskq-graph" data-taskq-live>{}</div>', text % {"count": count})
    about = _("Graph of the workflow: %(total)s steps, of which %(ended)s have ended; the table below has each.") % {
        "total": number(info.total),
        "ended": number(info.ended),
    }

    def words(step: StepInfo) -> str:
        return f"{step_words(step)} {members(step)}".strip()

    svg = graph_svg(detail.drawing, about=about, words=words, prefix=_PREFIX, shown=shown)
    legend = _("A full line is followed on success, a dashed one in either case, a dotted one on failure.")
    return format_html(
        '<div id="taskq-graph" data-taskq-live>{}<div class="help">{}</div></div>',
        scrolling(_("Graph"), mark_safe(svg)),  # noqa: S308 - the core has escaped all text in it
        legend,
    )


def scrolling(label: str, content: SafeString) -> SafeString:
    """Return what scrolls sideways by itself on a narrow screen, also by keyboard."""
    box = '<div class="taskq-scroll-x" role="region" aria-label="{}" tabindex="0">{}</div>'
    return format_html(box, label, content)


def table(heads: Sequence[str], rows: Sequence[Sequence[Any]], label: str) -> SafeString:
    """Return a table whose first cells head their rows."""
    body = format_html_join(
        "",
        "<tr>{}</tr>",
        (
            (
                format_html(
                    '<th scope="row">{}</th>{}', row[0], format_html_join("", "<td>{}</td>", ((c,) for c in row[1:]))
                ),
            )
            for row in rows
        ),
    )
    head = format_html_join("", '<th scope="col">{}</th>', ((text,) for text in heads))
    whole = '<table class="taskq-table taskq-steps"><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
    return scrolling(label, format_html(whole, head, body))


def pages(first: int, rows: int, total: int, links: Sequence[tuple[str, str]]) -> SafeString | str:
    """Return which part of a table is shown, with links to the others; nothing if it is all."""
    if rows >= total:
        return ""
    text = _("%(first)s to %(last)s of %(total)s") % {
        "first": number(first + 1 if rows else 0),
        "last": number(first + rows),
        "total": number(total),
    }
    return format_html('<p class="taskq-pages">{} {}</p>', text, format_html_join(" ", '<a href="{}">{}</a>', links))
