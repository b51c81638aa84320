"""Serve the status of one task as JSON, for a page on which a user waits for the task.

::

    path("exports/<str:task_id>/status", task_status_view(allow=may_see), name="export-status")

The template tag `{% task_progress "export-status" task_id %}` draws a progress bar that polls this view.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_safe

from taskq_core import BrokerError, TaskInfo, TaskNotFoundError, TaskState
from taskq_core.errors import WireFormatError
from taskq_core.views.status import status_of
from taskq_django.app import taskq

logger = logging.getLogger("taskq.django")

_TEXTS: Mapping[TaskState, Any] = {
    TaskState.SCHEDULED: _("Waiting"),
    TaskState.PENDING: _("Waiting"),
    TaskState.AGGREGATING: _("Waiting"),
    TaskState.RETRY: _("Waiting for the next attempt"),
    TaskState.ACTIVE: _("Running"),
    TaskState.COMPLETED: _("Done"),
    TaskState.ARCHIVED: _("Failed"),
}


def task_status_view(
    *,
    allow: Callable[[HttpRequest, TaskInfo], bool] | None = None,
    show_results: bool = True,
    show_errors: bool = False,
) -> Callable[..., HttpResponse]:
    """Return a view of the status of a task. The URL contains its `task_id`. The payload is never shown.

    The view answers 404 if the task does not exist or the request may not see it, so that ids cannot be probed. It
    answers 503 while Redis does not answer.

    Args:
        allow: Return whether a request may see a task. Without it, the view answers 403.
        show_results: Include the result of the task, and its progress.
        show_errors: Include the error of its last failed run. The text of an exception may hold private data.
    """

    @never_cache
    @require_safe
    def task_status(request: HttpRequest, task_id: str) -> HttpResponse:
        if allow is None:
            logger.warning(
                "task_status_view answers 403: pass allow=..., a function of the request and the task (a TaskInfo) "
                "that returns whether the request may see the task"
            )
            return JsonResponse(
                {"detail": "access is not configured; the log of the server explains how to allow it"}, status=403
            )
        try:
            info = taskq.get(task_id).info
        except TaskNotFoundError:
            info = None
        except (BrokerError, WireFormatError) as error:
            logger.warning("the status of task %s cannot be read: %s", task_id, error)
            return JsonResponse({"detail": "the queue does not answer"}, status=503, headers={"Retry-After": "2"})
        if info is None or not allow(request, info):
            gone = {"id": task_id, "state": "gone", "is_final": True, "text": str(_("Not available any more"))}
            return JsonResponse(gone, status=404)
        status = status_of(info, show_results=show_results, show_errors=show_errors)
        status["text"] = _text(info, show_progress=show_results)
        return JsonResponse(status)

    return task_status


def _text(info: TaskInfo, *, show_progress: bool) -> str:
    """Return the text for the page: the progress message of a running task, or the state."""
    if show_progress and info.state is TaskState.ACTIVE and info.progress is not None and info.progress.message:
        return info.progress.message
    return str(_TEXTS[info.state])
