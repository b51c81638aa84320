"""Tasks of Django's own framework: `django.tasks`, or the package django-tasks."""

import asyncio
import threading
from typing import Any

from taskq_core import Retry
from taskq_django.tasks_backend.framework import PACKAGE

if PACKAGE == "django.tasks":
    from django.tasks import TaskContext, task
else:
    from django_tasks import TaskContext, task  # type: ignore[import-not-found,no-redef]  # only needed on Django 5.2


class LostError(Exception):
    """A parcel is lost."""


@task
def label(*args: Any, **kwargs: Any) -> dict[str, Any]:
    return {"args": list(args), "kwargs": kwargs}


@task()
def weigh(parcel: int, unit: str = "kg", *, exact: bool = False) -> list[Any]:
    return [parcel, unit, exact]


@task(queue_name="default")
async def track(parcel: int) -> str:
    await asyncio.sleep(0)
    return f"parcel {parcel} is on its way"


@task()
def lose(parcel: int) -> None:
    raise LostError(f"parcel {parcel} is nowhere")


@task()
async def alose(parcel: int) -> None:
    raise LostError(f"parcel {parcel} is nowhere")


@task()
def bury(task_id: str, archived_at: str) -> list[str]:
    return [task_id, archived_at]


@task()
def quit_early() -> None:
    raise SystemExit("enough")


@task()
def interrupt() -> None:
    raise KeyboardInterrupt


@task()
def open_box() -> Any:
    return object()


@task(takes_context=True)
def stamp(context: TaskContext, parcel: int) -> list[Any]:
    result = context.task_result
    return [result.id, context.attempt, result.status, parcel, result.args, result.kwargs]


@task(takes_context=True)
async def astamp(context: TaskContext, parcel: int) -> list[Any]:
    return [context.task_result.id, context.attempt, parcel]


@task(takes_context=True)
def deliver(context: TaskContext, doors: int, pause_s: int = 0) -> list[Any]:
    """Fail at every door except the last, and retry after this number of seconds."""
    if context.attempt < doors:
        raise Retry(after=pause_s) from LostError(f"nobody at door {context.attempt}")
    return [[each.exception_class_path for each in context.task_result.errors], context.attempt]


gate = threading.Event()
"""Holds up `wait_at_gate`."""


@task()
def wait_at_gate() -> str:
    assert gate.wait(60)
    return "through"
