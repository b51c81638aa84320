"""What can be done to queues: each of several by itself, and each logged with who did it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from django import forms
from django.contrib import messages
from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.http import HttpRequest
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext, override

from taskq_core import BrokerError, TaskState
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.errors import (
    BrokerReplyError,
    QueueNotEmptyError,
    QueueNotFoundError,
    QueueNotPausedError,
    QueuePausedError,
    QueueStateError,
)
from taskq_core.inspector import Inspector
from taskq_core.views import STATES
from taskq_django.admin.labels import number
from taskq_django.admin.rows import PickedRows, Rows
from taskq_django.admin.task_filters import STATE_NAMES

LONGEST_S = 20.0
"""Seconds that one request deletes tasks for. Then it says how far it got, rather than be cut off by a server."""
READ = "taskq_queues"
"""Attribute of a request that keeps how the queues stood when it was read."""
DELETABLE = tuple(state for state in STATES if state is not TaskState.ACTIVE)


class EmptyForm(forms.Form):
    """Which tasks to delete.

    Args:
        data: What was posted, None if nothing was yet.
        sizes: How many tasks there are in each state.
    """

    states = forms.MultipleChoiceField(
        label=gettext_lazy("States"),
        widget=forms.CheckboxSelectMultiple,
        help_text=gettext_lazy("Tasks that run are left alone."),
    )

    def __init__(self, data: Any, sizes: Mapping[TaskState, int]) -> None:
        super().__init__(data)
        field: Any = self.fields["states"]
        field.choices = [
            (state.value, f"{capfirst(STATE_NAMES[state])} ({number(sizes[state])})") for state in DELETABLE
        ]


class DeleteForm(forms.Form):
    """Whether to delete a queue that is not empty."""

    force = forms.BooleanField(
        label=gettext_lazy("Delete the tasks in it as well"),
        required=False,
        help_text=gettext_lazy(
            "Without it a queue is deleted only if all its tasks have succeeded. A queue whose tasks run is kept."
        ),
    )


class TimeUpError(Exception):
    """A request has worked long enough."""


class Stopwatch:
    """Ends a long piece of work when the time of a request is over."""

    def __init__(self) -> None:
        self._end = SYSTEM_CLOCK.monotonic() + LONGEST_S
        self.begun = False

    def progress(self, done: int, total: int) -> None:
        """Raise if the time is over and something is left."""
        self.begun = True
        if done < total and SYSTEM_CLOCK.monotonic() > self._end:
            raise TimeUpError


def each(
    request: HttpRequest,
    queues: Rows,
    act: Callable[[str], str],
    *,
    watch: "Stopwatch | None" = None,
    is_deletion: bool = False,
) -> list[str]:
    """Do something to queues one by one; return the names of those it was done to.

    What cannot be done to one is said and keeps no other from it. If Redis fails, what was done before is logged and
    the error is raised; an act of which nobody knows whether it was done is logged as such.

    Args:
        request: Who asks for it.
        queues: The rows.
        act: Does it to the queue of this name and returns what to log.
        watch: Ends it when the time is over.
        is_deletion: Whether the queue is gone after it.
    """
    done: list[str] = []
    found = list(queues)
    vars(request).pop(READ, None)  # what was read before is so no longer
    if isinstance(queues, PickedRows):
        for name in sorted({*queues.keys} - {queue.pk for queue in found}):
            messages.warning(request, reason(QueueNotFoundError(name)))
    for place, queue in enumerate(found, start=1):
        try:
            with override(None):  # a log is kept in the language of the code, as Django's own
                said = act(queue.name)
        except (QueueNotFoundError, QueueStateError) as error:
            messages.warning(request, reason(error))
        except BrokerReplyError as error:  # this queue is damaged, and others may not be
            messages.error(request, f"{queue.name}: {error}")
        except TimeUpError:
            with override(None):
                said = _("Deleting tasks was cut off after %(seconds)d s.") % {"seconds": LONGEST_S}
            log(request, queue, said)
            text = _("“%(queue)s” has more tasks than one request deletes. Do it again to go on.")
            messages.warning(request, text % {"queue": queue.name})
            if left := found[place:]:
                names = ", ".join(row.name for row in left)
                messages.warning(request, _("Not begun: %(queues)s.") % {"queues": names})
            break
        except BrokerError as error:
            if getattr(error, "may_have_happened", False) or (watch is not None and watch.begun):
                with override(None):
                    said = _("Tried; Redis did not answer, so it is not known how far it got.")
                log(request, queue, said)
            raise
        else:
            log(request, queue, said, flag=DELETION if is_deletion else CHANGE)
            done.append(queue.name)
    return done


def log(request: HttpRequest, queue: Any, said: str, *, flag: int = CHANGE) -> None:
    """Write down who did what to a queue."""
    user: Any = request.user
    LogEntry.objects.log_actions(
        user_id=user.pk, queryset=[queue], action_flag=flag, change_message=said, single_object=True
    )


def reason(error: Exception) -> str:
    """Return why something was not done to a queue."""
    match error:
        case QueueNotFoundError():
            return _("The queue “%(queue)s” is not there (any more).") % {"queue": error.queue}
        case QueuePausedError():
            return _("“%(queue)s” is paused already.") % {"queue": error.queue}
        case QueueNotPausedError():
            return _("“%(queue)s” is not paused.") % {"queue": error.queue}
        case QueueNotEmptyError() if error.active:
            text = ngettext(
                "“%(queue)s” was kept: %(count)d of its tasks runs.",
                "“%(queue)s” was kept: %(count)d of its tasks run.",
                error.active,
            )
            return text % {"queue": error.queue, "count": error.active}
        case QueueNotEmptyError():
            text = ngettext(
                "“%(queue)s” was kept: %(count)d task would be lost.",
                "“%(queue)s” was kept: %(count)d tasks would be lost.",
                error.waiting,
            )
            return text % {"queue": error.queue, "count": error.waiting}
        case _:
            return str(error)


def empty(inspector: Inspector, name: str, states: Sequence[TaskState], watch: Stopwatch) -> int:
    """Delete all tasks of a queue in these states, those of each group for the one in groups; return how many."""
    deleted = 0
    for state in states:
        groups = [group.name for group in inspector.groups(name)] if state is TaskState.AGGREGATING else [None]
        for group in groups:
            deleted += inspector.delete_all(name, state, group=group, progress=watch.progress)
    return deleted
