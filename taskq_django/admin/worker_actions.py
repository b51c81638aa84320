"""Requests to workers, as actions of the admin."""

from typing import Any

from django import forms
from django.contrib import messages
from django.http import HttpRequest
from django.utils.translation import gettext as _now
from django.utils.translation import gettext_lazy as _
from django.utils.translation import ngettext, ngettext_lazy, override

from taskq_core.errors import WorkerNotFoundError
from taskq_core.inspector import Inspector, WorkerAction
from taskq_core.settings import CONCURRENCY_MAX
from taskq_django.admin.actions import confirmed_action
from taskq_django.admin.rows import Rows
from taskq_django.app import taskq


class ScaleForm(forms.Form):
    """Form for the concurrency of workers."""

    concurrency = forms.IntegerField(label=_("Tasks at a time"), min_value=1, max_value=CONCURRENCY_MAX)


ACTIONS = ("quiet", "resume", "scale", "stop")


class WorkerActionsMixin:
    """Actions on workers, for those with the permission `control_worker`."""

    def has_control_permission(self: Any, request: HttpRequest) -> bool:
        """Return whether the user may send requests to workers."""
        return bool(self.allows(request, "control"))

    @confirmed_action(
        description=_("Quiet selected %(verbose_name_plural)s"),
        button=_("Quiet"),
        question=ngettext_lazy(
            "Let %(count)d worker take no new tasks? What it runs goes on.",
            "Let %(count)d workers take no new tasks? What they run goes on.",
            "count",
        ),
        permissions=["control"],
    )
    def quiet(self, request: HttpRequest, workers: Rows, *, seen: Any) -> None:
        """Stop workers from taking new tasks."""
        self._send(request, workers, WorkerAction.QUIET, _("Asked to take no new tasks."))

    @confirmed_action(
        description=_("Resume selected %(verbose_name_plural)s"),
        button=_("Resume"),
        question=ngettext_lazy(
            "Let %(count)d worker take tasks again?", "Let %(count)d workers take tasks again?", "count"
        ),
        permissions=["control"],
    )
    def resume(self, request: HttpRequest, workers: Rows, *, seen: Any) -> None:
        """Let workers take tasks again."""
        self._send(request, workers, WorkerAction.RESUME, _("Asked to take tasks again."))

    @confirmed_action(
        description=_("Scale selected %(verbose_name_plural)s"),
        button=_("Scale"),
        question=ngettext_lazy(
            "Change how many tasks %(count)d worker runs at a time, until it is started again?",
            "Change how many tasks each of %(count)d workers runs at a time, until it is started again?",
            "count",
        ),
        permissions=["control"],
        form=ScaleForm,
    )
    def scale(self, request: HttpRequest, workers: Rows, *, seen: Any, concurrency: int) -> None:
        """Change the concurrency of workers."""
        self._send(request, workers, WorkerAction.SCALE, _("Asked to run another number of tasks."), concurrency)

    @confirmed_action(
        description=_("Stop selected %(verbose_name_plural)s"),
        button=_("Stop"),
        question=ngettext_lazy(
            "Stop %(count)d worker? Running tasks get time to finish. All processes of its supervisor stop.",
            "Stop %(count)d workers? Running tasks get time to finish. All processes of their supervisors stop.",
            "count",
        ),
        permissions=["control"],
        is_destructive=True,
    )
    def stop(self, request: HttpRequest, workers: Rows, *, seen: Any) -> None:
        """Stop workers gracefully."""
        self._send(request, workers, WorkerAction.STOP, _("Asked to stop."))

    def _send(
        self: Any, request: HttpRequest, workers: Rows, action: WorkerAction, said: Any, concurrency: int | None = None
    ) -> None:
        found = list(workers)
        try:
            ids = [str(each.pk) for each in found]
            asked = {each.id for each in Inspector(taskq).control_workers(action, ids, concurrency=concurrency)}
        except WorkerNotFoundError as error:
            self.message_user(request, str(error), messages.ERROR)
            return
        if not asked:
            self.message_user(request, _now("No worker listens."), messages.ERROR)
            return
        for worker in found:
            with override(None):  # the log is in the language of the code, as Django's is
                self.log_change(request, worker, str(said))
        text = ngettext("%(count)d worker was asked.", "%(count)d workers were asked.", len(asked))
        self.message_user(request, text % {"count": len(asked)}, messages.SUCCESS)
