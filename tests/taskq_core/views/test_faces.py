"""The blocking dashboard answers as the one for asyncio does, which the other tests here ask."""

import re
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.views import AsyncDashboard, Dashboard, TaskFilter, WorkflowFilter
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import group

pytestmark = pytest.mark.redis


def told(answer: object) -> str:
    """Return all that an answer says, except when it was read."""
    return re.sub(r"as_of=datetime\.datetime\(.*?\)", "", repr(answer))


async def test_every_operation_answers_alike(app: TaskQ, now_s: int) -> None:
    @app.task(name="bad", max_retry=0)
    async def bad(number: int) -> None:
        raise ValueError(f"no {number}")

    handle = (group(bad.si(number) for number in range(3)) | bad.si(3)).named("order").delay()
    assert await Worker(app, WorkerConfig(burst=True)).arun() == 0
    inspector = Inspector(app)
    blocking, aio = Dashboard(inspector), AsyncDashboard(AsyncInspector(app))
    infos, counts = inspector.queue_infos(), blocking.workflow_counts(["default"])
    (named, *_) = blocking.workflow("default", handle.id).graph.steps
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("queues", (), {}),
        ("queue", ("default",), {"days": 3}),
        ("history", (["default"],), {"days": 3}),
        ("samples", (["default"],), {"span": timedelta(hours=2), "points": 50}),
        ("types", (["default"],), {"hours": 3}),
        ("state_types", ("default", TaskState.ARCHIVED), {"scan": 100}),
        ("workers", (), {}),
        ("workflows", ("default",), {"skip": 0, "count": 1}),
        ("workflow", ("default", handle.id), {}),
        ("workflow_step", ("default", handle.id, named.name), {"skip": 1, "count": 1}),
        ("workflow_step", ("default", handle.id, named.name), {"only_failed": True}),
        ("workflow_counts", (["default"],), {}),
        ("list_workflows", (counts, WorkflowFilter(queue="default")), {"skip": 0, "count": 1}),
        ("search_workflows", (counts, WorkflowFilter(text="order")), {"scan": 5}),
        ("tasks", (infos, TaskFilter(queue="default")), {"skip": 1, "count": 2}),
        ("search_tasks", (infos, TaskFilter(text="no 2")), {"scan": 100, "limit": 1}),
        ("select_tasks", (infos, TaskFilter()), {"states": [TaskState.ARCHIVED]}),
    ]

    for method, args, options in asked:
        answer = told(getattr(blocking, method)(*args, **options))
        assert answer == told(await getattr(aio, method)(*args, **options)), method
        assert answer not in ("()", "[]"), f"{method} found nothing"
    assert type(blocking.store()) is type(await aio.store())
