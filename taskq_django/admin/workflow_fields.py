"""The columns of the list of workflows, and the fields on the page of one workflow."""

from collections.abc import Mapping, Sequence
from typing import Any

from django.contrib import admin
from django.core.paginator import Page, Paginator
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import Truncator
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import pgettext, pgettext_lazy

from taskq_core.views import MemberRow, StepDetail, graph_svg, has_task, labels
from taskq_core.workflow import StepInfo, StepState, WorkflowState
from taskq_django.admin.columns import column
from taskq_django.admin.formats import HIDDEN, cut_note, exactly, in_active_language, number, render, when
from taskq_django.admin.live import MixinBase

STEPS_SHOWN = 100
"""Maximum number of steps on one page of the table of steps."""
MEMBERS_SHOWN = 50
"""Maximum number of members on one page of the table of members."""
AFTER_SHOWN = 20
"""Maximum number of predecessors of a step in the table. A step that handles failures may have many."""
_COLORS = {WorkflowState.RUNNING: StepState.STARTED, WorkflowState.DAMAGED: StepState.FAILED}


class WorkflowColumns(MixinBase):
    """Columns and fields of workflows. A row has a `record` and `links`.

    On the page of one workflow it also has a `detail` (None with a `problem` if the workflow is damaged), the query
    parameters of the page as `params`, and the `step` that the page shows.
    """

    started = column(pgettext_lazy("time", "started"), "created_at", when)
    ended = column(pgettext_lazy("time", "ended"), "ended_at", when)
    name = column(_("name"), "name")
    workflow_id = column(_("id"), "id")
    started_at = column(pgettext_lazy("time", "started"), "created_at", exactly)
    ended_at = column(pgettext_lazy("time", "ended"), "ended_at", lambda value: exactly(value) or "-")

    @admin.display(description=_("workflow"))
    def title(self, workflow: Any) -> SafeString | str:
        """Return the name, and the beginning of the id."""
        record = workflow.record
        if not record.name:
            return str(record.id)
        short = Truncator(record.id).chars(12)
        return format_html('{} <span class="quiet nowrap" title="{}">{}</span>', record.name, record.id, short)

    @admin.display(description=_("state"))
    def state(self, workflow: Any) -> SafeString:
        """Return the state with its color."""
        state = workflow.record.state
        name = pgettext("workflow state", state.value)
        return render("workflow_state.html", state=state, kind=f"step-{_COLORS.get(state, state)}", name=name)

    @admin.display(description=_("steps"), empty_value="-")
    def progress(self, workflow: Any) -> SafeString | str:
        """Return the number of ended steps."""
        record = workflow.record
        if record.state is WorkflowState.DAMAGED:
            return ""
        label = _now("Steps that have ended")
        return _progress(record.steps_ended, record.steps, record.steps_failed, label)

    @admin.display(description=_("home queue"))
    def home(self, workflow: Any) -> SafeString | str:
        """Return the home queue, in whose cluster slot the state of the workflow is stored."""
        found: SafeString | str = workflow.links.queue(workflow.record.queue)
        return found

    @admin.display(description=_("problem"))
    def problem(self, workflow: Any) -> str:
        """Return why the workflow cannot be read."""
        return str(workflow.problem)

    @admin.display(description=_("graph"))
    def graph(self, workflow: Any) -> SafeString | str:
        """Return a drawing of the steps."""
        detail = workflow.detail
        if detail is None:
            return ""
        context: dict[str, Any] = {"info": detail.graph.info, "count": len(detail.graph.steps)}
        if detail.drawing is not None:
            about = _now("Graph of the workflow: %(total)s steps, of which %(ended)s have ended. The table lists them.")
            about %= {"total": number(detail.graph.info.total), "ended": number(detail.graph.info.ended)}
            shown = workflow.params.get("step", "")
            svg = graph_svg(detail.drawing, about=about, words=_words, prefix="taskq-", shown=shown)
            context["svg"] = mark_safe(svg)  # noqa: S308 - the core has escaped all text in it
        return render("workflow_graph.html", **context)

    @admin.display(description=_("all steps"))
    def steps(self, workflow: Any) -> SafeString | str:
        """Return a table of the steps."""
        if workflow.detail is None:
            return ""
        page = Paginator(workflow.detail.graph.steps, STEPS_SHOWN).get_page(workflow.params.get("steps"))
        rows = [
            {
                "step": step,
                "after": list(step.after.items())[:AFTER_SHOWN],
                "more": len(step.after) > AFTER_SHOWN,
                "url": _address(workflow.params, "taskq-step", step=step.name, members=None, failed=None),
                "task": _task(workflow, step, step.task or "-"),
                "queue": workflow.links.queue(step.queue) or "-",
                **_state(step),
            }
            for step in page
        ]
        pages = _pages(workflow.params, "steps", page, "taskq-steps")
        return render("workflow_steps.html", rows=rows, pages=pages, page=page, workflow=workflow)

    @admin.display(description=_("step"))
    def step(self, workflow: Any) -> SafeString | str:
        """Return the step that is selected in the address: its result, or the members of a group."""
        if "step" not in workflow.params or workflow.detail is None:
            return ""
        context: dict[str, Any] = {"workflow": workflow, "found": workflow.step}
        if workflow.step is not None:
            found, step = workflow.step, workflow.step.step
            context |= {
                "step": step,
                "task": _task(workflow, step, step.task) if step.task else "",
                "note": _note(workflow, found),
                "only_failed": "failed" in workflow.params,
                "all_url": _address(workflow.params, "taskq-step", failed=None, members=None),
                "failed_url": _address(workflow.params, "taskq-step", failed="1", members=None),
                **_state(step),
            }
            context["members"] = [
                {
                    "member": each,
                    "task": _task(workflow, each, each.task_id),
                    "queue": workflow.links.queue(each.queue),
                    "result": each.result.decode("utf-8", "replace"),
                    **_state(each),
                }
                for each in found.members
            ]
            page = members_page(workflow.params, step.members or 0)
            context |= {"page": page, "pages": _pages(workflow.params, "members", page, "taskq-step")}
        return render("workflow_step.html", **context)


def _note(workflow: Any, found: StepDetail) -> str:
    """Return a note about a result that is cut or hidden."""
    if found.result_size and not workflow.links.sees_payloads:
        return str(HIDDEN)
    return cut_note(len(found.result), found.result_size)


def members_page(params: Mapping[str, str], members: int) -> Page:  # type: ignore[type-arg]  # Django's own class takes no parameter
    """Return the selected page of a group's members."""
    return Paginator(range(members), MEMBERS_SHOWN).get_page(params.get("members"))


def _pages(params: Mapping[str, str], name: str, page: Any, part: str) -> Sequence[tuple[str, str]]:
    """Return address and text of each link to another page of a table."""
    last = page.paginator.num_pages
    links = [(_now("First"), 1), (_now("Previous"), page.number - 1), (_now("Next"), page.number + 1)]
    links.append((_now("Last"), last))
    return [
        (_address(params, part, **{name: str(to)}), text) for text, to in links if 1 <= to <= last and to != page.number
    ]


def _address(params: Mapping[str, str], part: str, **changes: str | None) -> str:
    """Return the relative address of the same page with changed parameters, and the id `part` as its fragment."""
    current = {name: params[name] for name in ("step", "steps", "members", "failed") if params.get(name)}
    return f"?{urlencode({name: value for name, value in {**current, **changes}.items() if value})}#{part}"


def _state(step: StepInfo | MemberRow) -> dict[str, Any]:
    """Return the state of a step or of a member, and the number of ended members of a group."""
    found = {"kind": f"step-{step.state}", "state": _state_text(step), "progress": ""}
    if isinstance(step, StepInfo) and step.members is not None:
        done = step.succeeded + step.failed
        found["progress"] = _progress(done, step.members, step.failed, _now("Members that have ended"))
    return found


def _state_text(step: StepInfo | MemberRow) -> str:
    with in_active_language():
        return labels.step_state(step)


def _words(step: StepInfo) -> str:
    """Return the state of a step and the number of its ended members, for the drawing."""
    if step.members is None:
        return _state_text(step)
    facts = {"done": number(step.succeeded + step.failed), "most": number(step.members), "failed": number(step.failed)}
    members = (_now("%(done)s/%(most)s, %(failed)s failed") if step.failed else "%(done)s/%(most)s") % facts
    return f"{_state_text(step)} {members}"


def _progress(done: int, most: int, failed: int, label: str) -> SafeString:
    text = _now("%(done)s of %(most)s") % {"done": number(done), "most": number(most)}
    if failed:
        text = _now("%(progress)s, %(failed)s failed") % {"progress": text, "failed": number(failed)}
    bar = '<progress value="{}" max="{}" aria-label="{}"></progress> <span class="nowrap">{}</span>'
    return format_html(bar, done, max(most, 1), label, text)


def _task(workflow: Any, step: StepInfo | MemberRow, text: str) -> SafeString | str:
    found: SafeString | str = workflow.links.task(text, step.queue, step.task_id) if has_task(step) else text
    return found
