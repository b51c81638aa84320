"""Test that today's code delivers and runs the outbox rows of earlier releases, and writes the same rows.

During a deploy two releases share a table. The older one writes rows with the columns that it knows, and both deliver
rows.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async

from taskq_core import DuplicateTaskError, TaskQ, TaskState, Unique
from taskq_core.handles.records import TaskInfo
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.views import AsyncDashboard
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.workflow import WorkflowState
from taskq_django import taskq
from taskq_django.models import OutboxTask
from tests.processes.releases.outbox_scenario import AWAY, FAR, comparable, play, put_back, written
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True)]

GOLDEN = Path(__file__).parents[2] / "golden"
FILES = sorted(GOLDEN.glob("outbox-*.json"), key=lambda path: [int(n) for n in path.stem[7:].split(".")])
QUEUES = {"default": 1, "low": 1}
STATES = {
    "plain-1": "pending",
    "options-1": "pending",
    "at-1": "scheduled",
    "in-1": "scheduled",
    "locked-1": "pending",
    "unique-1": "pending",
    "grouped-1": "aggregating",
    "limited-1": "pending",
    "safe-1": "pending",
}
"""States of the scenario's tasks after their delivery."""


def read(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return found


@pytest.fixture(autouse=True)
def outbox(redis_server: RedisServer, settings: Any) -> Iterator[None]:
    """Enqueue tasks of the project into the outbox, where they stay until a worker sends them."""
    settings.TASKQ = {
        "URL": redis_server.unix_url,
        "QUEUES": QUEUES,
        "ENQUEUE": "outbox",
        "ENQUEUE_TIMEOUT": 30,
    }
    yield
    taskq.close()


def application(url: str) -> TaskQ:
    """The application with the tasks, without an outbox."""
    app = TaskQ(url, enqueue_timeout=30)

    @app.task(name="mail:send")
    async def send(to: str, subject: str = "Hello") -> str:
        return to

    @app.task(name="sum:add")
    async def add(a: int, b: int) -> int:
        return a + b

    @app.task(name="sum:twice")
    async def twice(number: int) -> int:
        return 2 * number

    return app


def test_the_scenario_writes_the_same_rows_today(settings: Any) -> None:
    """A change of a column or its content fails here."""
    settings.TASKQ = {**settings.TASKQ, **AWAY}
    play(taskq)

    today, then = comparable(written()), comparable(read(FILES[-1]))

    assert len(then) > 100
    assert today == then


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_rows_of_an_earlier_release_are_delivered_correctly(path: Path, redis_server: RedisServer) -> None:
    rows = read(path)
    put_back(rows)

    deliver()

    left = list(OutboxTask.objects.values_list("task_id", flat=True))
    assert left == ["safe-1"], "a delivery that Redis cannot confirm must be repeated"
    inspector = Inspector(taskq)
    found = {name: info(inspector, "low" if name == "options-1" else "default", name) for name in STATES}
    assert {name: str(task.state) for name, task in found.items()} == STATES
    options = found["options-1"]
    assert (options.queue, options.max_retry, options.deadline, options.priority) == ("low", 7, FAR, 3)
    assert options.headers["tenant"] == "north"
    assert json.loads(found["plain-1"].payload) == {"to": "a@example.com", "subject": "é"}
    assert found["at-1"].next_run_at == FAR
    start = found["in-1"].next_run_at
    assert start is not None
    assert 0 < (start - inspector.queue_info("default").as_of).total_seconds() <= 91  # rounded up to whole seconds
    for name, number in (("locked-1", {"unique_for": 60}), ("unique-1", {"unique": Unique(args=["to"])})):
        held = json.loads(found[name].payload)
        with pytest.raises(DuplicateTaskError):
            TaskQ(redis_server.unix_url, enqueue_timeout=30).remote("mail:send", queue="default", **number).delay(
                **held
            )


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
async def test_rows_of_an_earlier_release_run_to_completion(path: Path, redis_server: RedisServer) -> None:
    await sync_to_async(put_back)(read(path))
    await sync_to_async(deliver)()
    app = application(redis_server.unix_url)

    assert await Worker(app, WorkerConfig(burst=True, queues=QUEUES)).arun() == 0

    page = await AsyncDashboard(AsyncInspector(app)).workflows("default")
    plain = await AsyncInspector(app).task("low", "options-1")
    await app.aclose()
    assert [each.state for each in page.rows] == [WorkflowState.SUCCEEDED] * 2
    assert plain.state == TaskState.COMPLETED


def info(inspector: Inspector, queue: str, task_id: str) -> TaskInfo:
    found = inspector.task(queue, task_id)
    assert isinstance(found, TaskInfo)
    return found


def deliver() -> None:
    """Move all rows to Redis, as the relay of a worker does."""
    (table, *_) = taskq.outbox_tables
    while taskq.runtime.delivery.deliver(table).claimed:
        pass
