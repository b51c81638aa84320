"""Looking for damage through the inspectors. What counts as damage is tested in tests/conformance/test_reconcile.py."""

import inspect
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.errors import QueueNotFoundError
from taskq_core.inspector import AsyncInspector, Inspector
from taskq_core.repair.bloom_filter import BloomFilter
from taskq_core.repair.reconcile import Finding, FindingKind, ReconcileReport
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer

Ask = Callable[..., Awaitable[ReconcileReport]]


@pytest.fixture
async def app(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    yield app
    await app.aclose()


@pytest.fixture
def queue(app: TaskQ) -> QueueKeys:
    return app.runtime.keys.queue("default")


@pytest.fixture(params=[Inspector, AsyncInspector])
def reconcile(request: pytest.FixtureRequest, app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Reconcile through either inspector, without the pause between the looks."""
    monkeypatch.setattr("taskq_core.repair.reconcile.RECHECK_S", 0.01)
    inspector = request.param(app)

    async def ask(*args: Any, **kwargs: Any) -> ReconcileReport:
        answer = inspector.reconcile(*args, **kwargs)
        report: ReconcileReport = await answer if inspect.isawaitable(answer) else answer
        return report

    return ask


@pytest.mark.redis
async def test_damage_is_reported_and_repaired_on_request(
    app: TaskQ, queue: QueueKeys, redis_server: RedisServer, reconcile: Ask
) -> None:
    handle = app.client.enqueue(app.remote("a:b").s())
    redis_server.client.delete(queue.pending)
    finding = Finding(
        kind=FindingKind.NOT_LISTED,
        task_id=handle.id,
        detail="state 'pending', in no structure: the task belongs in pending",
        repaired=False,
    )

    told = await reconcile("default")
    assert told == ReconcileReport(queue="default", scanned=1, findings=(finding,), is_complete=True)
    assert not redis_server.client.exists(queue.pending)

    repaired = await reconcile("default", repair=True)
    assert repaired.repaired == 1
    assert redis_server.client.lrange(queue.pending, 0, -1) == [handle.id.encode()]
    assert (await reconcile("default")).findings == ()


@pytest.mark.redis
async def test_progress_is_reported(app: TaskQ, reconcile: Ask) -> None:
    app.client.enqueue_many(app.remote("a:b").s() for _ in range(500))
    told: list[tuple[int, int]] = []

    await reconcile("default", progress=lambda done, total: told.append((done, total)))

    assert told[-1] == (500, 500)
    assert len(told) > 1


@pytest.mark.redis
async def test_an_unknown_queue_is_refused(reconcile: Ask) -> None:
    with pytest.raises(QueueNotFoundError):
        await reconcile("nope")


def test_no_added_id_is_lost() -> None:
    seen = BloomFilter(2000)

    assert not any(seen.add(f"id-{number}") for number in range(0, 2000, 2))
    assert all(seen.add(f"id-{number}") for number in range(0, 2000, 2))
    assert all(f"id-{number}" in seen for number in range(0, 2000, 2))
    assert sum(f"id-{number}" in seen for number in range(1, 2000, 2)) < 20
