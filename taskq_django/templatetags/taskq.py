"""`{% task_progress %}`: a progress bar of one task."""

from django import template
from django.urls import reverse

register = template.Library()


@register.inclusion_tag("taskq_django/task_progress.html")
def task_progress(view_name: str, task_id: str) -> dict[str, str]:
    """Draw a progress bar that keeps itself up to date until the task has ended. It asks Redis for nothing.

    Args:
        view_name: Name of the address of a `task_status_view`, which decides who may see the task.
        task_id: Id of the task.
    """
    return {"url": reverse(view_name, args=[task_id])}
