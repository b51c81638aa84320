"""What can be done to workflows: each of several by itself, confirmed, and logged with who did it."""

from collections.abc import Callable, Mapping
from typing import Any

from django.contrib import messages
from django.contrib.admin.models import CHANGE, LogEntry
from django.http import HttpRequest
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, ngettext_lazy, override

from taskq_core import BrokerError, WorkflowDamagedError
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import BrokerReplyError, WorkflowNotFoundError
from taskq_core.workflow import WorkflowHandle, WorkflowState
from taskq_django.admin.actions import confirmed_action, nothing_left
from taskq_django.admin.base import RedisAdminMixin
from taskq_django.admin.rows import PickedRows
from taskq_django.admin.workflow_labels import WORKFLOW_STATES
from taskq_django.app import taskq

ACTED_MAX = 1_000
"""Most workflows that one request acts on."""
LONGEST_S = 20.0
"""Seconds that one request acts for. Then it says how far it got, rather than be cut off by a server."""


class WorkflowActions(RedisAdminMixin):
    """The actions."""

    actions: Any = ("cancel_workflows", "retry_workflows")

    @confirmed_action(
        description=gettext_lazy("Cancel selected %(verbose_name_plural)s"),
        button=gettext_lazy("Cancel the workflow"),
        question=ngettext_lazy(
            "Cancel %(count)d workflow? No further step starts, those that wait in queues are dropped, and those that "
            "run are told to stop.",
            "Cancel %(count)d workflows? No further step starts, those that wait in queues are dropped, and those that "
            "run are told to stop.",
            "count",
        ),
        permissions=["run"],
        is_destructive=True,
    )
    def cancel_workflows(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Cancel workflows."""

        def act(handle: WorkflowHandle, state: WorkflowState) -> str:
            is_cancelled = handle.cancel()  # also of one that is: what waits or runs of it is told once more
            return _("Cancelled.") if is_cancelled and state is WorkflowState.RUNNING else ""

        done, in_vain = self._each(request, rows, act, seen)
        if done:
            text = ngettext("%(count)d workflow is cancelled.", "%(count)d workflows are cancelled.", done)
            self.message_user(request, text % {"count": done}, messages.SUCCESS)
        if in_vain:
            text = ngettext("%(count)d workflow had ended already.", "%(count)d workflows had ended already.", in_vain)
            self.message_user(request, text % {"count": in_vain}, messages.WARNING)

    @confirmed_action(
        description=gettext_lazy("Run what failed of selected %(verbose_name_plural)s again"),
        button=gettext_lazy("Run what failed again"),
        question=ngettext_lazy(
            "Run what failed of %(count)d workflow again, and then what was skipped for its sake? What has succeeded "
            "does not run again.",
            "Run what failed of %(count)d workflows again, and then what was skipped for its sake? What has succeeded "
            "does not run again.",
            "count",
        ),
        permissions=["run"],
    )
    def retry_workflows(self, request: HttpRequest, rows: Any, *, seen: Mapping[str, str]) -> None:
        """Run what failed again."""
        steps = 0

        def act(handle: WorkflowHandle, state: WorkflowState) -> str:
            nonlocal steps
            count = handle.retry()
            steps += count
            text = ngettext("Run again: %(count)d step.", "Run again: %(count)d steps.", count)
            return text % {"count": count} if count else ""

        done, in_vain = self._each(request, rows, act, seen)
        if done:
            text = ngettext("%(count)d step runs again.", "%(count)d steps run again.", steps)
            self.message_user(request, text % {"count": steps}, messages.SUCCESS)
        if in_vain:
            text = ngettext(
                "Nothing of %(count)d workflow is there to run again.",
                "Nothing of %(count)d workflows is there to run again.",
                in_vain,
            )
            self.message_user(request, text % {"count": in_vain}, messages.WARNING)

    def action_links(self, request: HttpRequest, obj: Any) -> list[tuple[str, str]]:
        """Return the actions that make sense for this workflow."""
        fitting = set(self._allowed(request)) - {"cancel_workflows", "retry_workflows"}
        if obj.record.state is WorkflowState.RUNNING:
            fitting.add("cancel_workflows")
        if obj.detail is not None and obj.detail.can_be_retried:
            fitting.add("retry_workflows")
        links = zip(self._allowed(request), super().action_links(request, obj), strict=True)
        return [link for name, link in links if name in fitting]

    # --- doing it -----------------------------------------------------------------------------------------------------

    def _each(
        self,
        request: HttpRequest,
        rows: Any,
        act: Callable[[WorkflowHandle, WorkflowState], str],
        seen: Mapping[str, str],
    ) -> tuple[int, int]:
        """Do something to workflows one by one; return to how many it was done, and to how many in vain.

        What cannot be done to one is said and keeps no other from it. If Redis fails, what was done before is logged
        and the error is raised; an act of which nobody knows whether it was done is logged as such.

        Args:
            request: Who asks for it.
            rows: The workflows.
            act: Does it to one that stands so, and returns what to log; nothing if there was nothing to do.
            seen: How each stood when it was shown: one that stands otherwise by now is left alone.
        """
        end = SYSTEM_CLOCK.monotonic() + LONGEST_S
        found = list(rows) if isinstance(rows, PickedRows) else rows[:ACTED_MAX]
        done = in_vain = 0
        changed: dict[str, int] = {}
        damaged = gone = 0
        if isinstance(rows, PickedRows):
            gone = len(rows.keys) - len(found)
        for place, row in enumerate(found):
            if place and SYSTEM_CLOCK.monotonic() > end:
                left = rows.count() - place
                text = _("The time of one request is over: %(count)d are left. Do it again to go on.")
                self.message_user(request, text % {"count": left}, messages.WARNING)
                break
            state = str(row.record.state)
            if state == WorkflowState.DAMAGED:
                damaged += 1
                continue
            if seen.get(row.pk, state) != state:
                changed[state] = changed.get(state, 0) + 1
                continue
            try:
                with override(None):  # a log is kept in the language of the code, as Django's own
                    said = act(taskq.workflow(row.record.id, row.record.queue), row.record.state)
            except WorkflowNotFoundError:
                gone += 1
                continue
            except (WorkflowDamagedError, BrokerReplyError):
                damaged += 1
                continue
            except BrokerError as error:
                if getattr(error, "may_have_happened", True):
                    with override(None):
                        _log(request, row, _("Tried; Redis did not answer, so it is not known how far it got."))
                raise
            if said:
                _log(request, row, said)
                done += 1
            else:
                in_vain += 1
        else:
            if not isinstance(rows, PickedRows) and (rows.count() > ACTED_MAX or rows.next_cursor is not None):
                text = _("There may be more: at most %(most)d are gone through at once. Do it again to go on.")
                self.message_user(request, text % {"most": ACTED_MAX}, messages.WARNING)
        self._tell_skipped(request, changed, damaged, gone)
        if not (done or in_vain or changed or damaged or gone):
            self.message_user(request, nothing_left(), messages.WARNING)
        return done, in_vain

    def _tell_skipped(self, request: HttpRequest, changed: Mapping[str, int], damaged: int, gone: int) -> None:
        """Say how many were left alone, and why."""
        reasons = [
            ngettext("%(count)d is %(state)s by now", "%(count)d are %(state)s by now", count)
            % {"count": count, "state": WORKFLOW_STATES[WorkflowState(state)]}
            for state, count in sorted(changed.items())
        ]
        if damaged:
            reasons.append(ngettext("%(count)d is damaged", "%(count)d are damaged", damaged) % {"count": damaged})
        if gone:
            text = ngettext("%(count)d is not there (any more)", "%(count)d are not there (any more)", gone)
            reasons.append(text % {"count": gone})
        if reasons:
            text = _("Skipped: %(reasons)s.") % {"reasons": "; ".join(reasons)}
            self.message_user(request, text, messages.WARNING)


def _log(request: HttpRequest, row: Any, said: str) -> None:
    """Write down who did what to a workflow."""
    user: Any = request.user
    LogEntry.objects.log_actions(
        user_id=user.pk, queryset=[row], action_flag=CHANGE, change_message=said, single_object=True
    )
