"""`{% task_progress %}`: a progress bar of one task."""

from django import template
from django.urls import reverse

register = template.Library()


@register.inclusion_tag("taskq_django/task_progress.html")
def task_progress(view_name: str, task_id: str) -> dict[str, str]:
    """Draw a progress bar that updates itself until the task has ended. The tag itself does not read Redis.

    Args:
        view_name: URL name of a `task_status_view`, which decides who may see the task.
        task_id: Id of the task.
    """
    return {"url": reverse(view_name, args=[task_id])}
