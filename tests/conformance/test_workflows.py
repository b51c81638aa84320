"""Test the scripts of workflows on every store, including queues on different nodes of a cluster."""

from collections.abc import Iterator
from typing import Any

import pytest

from taskq_core import ResultTooLargeError, TaskQ, WorkflowFailedError, chain, chord, group
from taskq_core.broker.operations import runs, workflows
from taskq_core.inspector import Inspector
from taskq_core.testing import adrain
from taskq_core.views import Dashboard
from taskq_core.wire import TaskState
from taskq_core.workflow import StepFailure, StepState, Workflow
from tests.conformance.stores import NOW_NS, Broker

OTHERS = ("default", "other", "third", "fourth")
"""Queues whose keys lie in different slots, on different nodes of a cluster."""


@pytest.fixture
def app(broker: Broker) -> Iterator[TaskQ]:
    store = broker.store
    if store.endpoint.is_cluster:
        hosts = ",".join(f"{node.host}:{node.port}" for node in store.raw.get_primaries())
        app = TaskQ(f"redis+cluster://{hosts}", queues=dict.fromkeys(OTHERS, 1), enqueue_timeout=30)
    else:
        app = TaskQ(
            store.raw if store.server is None else store.server.unix_url,
            queues=dict.fromkeys(OTHERS, 1),
            enqueue_timeout=30,
        )
    yield app
    app.close()


class Tasks:
    """Tasks that note what they do."""

    def __init__(self, app: TaskQ) -> None:
        self.seen: list[Any] = []
        seen = self.seen

        @app.task(name="add")
        async def add(a: int, b: int = 0) -> int:
            seen.append((a, b))
            return a + b

        @app.task(name="total")
        async def total(numbers: list[int]) -> int:
            return sum(numbers)

        @app.task(name="fail", max_retry=0)
        async def fail(a: int) -> int:
            raise ValueError('a "reason" \u00e9')

        @app.task(name="tell")
        async def tell(failure: StepFailure) -> None:
            seen.append((failure["step"], failure["error"]))

        self.add, self.total, self.fail, self.tell = add, total, fail, tell


@pytest.fixture
def tasks(app: TaskQ) -> Tasks:
    return Tasks(app)


async def test_steps_run_in_queues_of_different_slots(app: TaskQ, tasks: Tasks) -> None:
    add = tasks.add
    workflow = add.s(1) | add.s(10).using(queue="other") | add.s(100).using(queue="third") | add.s(1000)
    handle = await workflow.adelay()
    fanned = await chord(
        (add.s(each).using(queue=OTHERS[each % 4]) for each in range(130)), tasks.total.s().using(queue="other")
    ).adelay()

    await adrain(app)

    assert await handle.aresult(timeout=30) == 1111
    assert await fanned.aresult(timeout=30) == sum(range(130))
    assert len(tasks.seen) == 4 + 130


async def test_a_failure_in_another_queue_runs_a_callback_in_a_third_queue(app: TaskQ, tasks: Tasks) -> None:
    workflow = (tasks.add.s(1) | tasks.fail.s().using(queue="other") | tasks.add.s()).on_error(
        tasks.tell.s().using(queue="third")
    )
    handle = await workflow.adelay()

    await adrain(app, raises=False)

    with pytest.raises(WorkflowFailedError):
        await handle.aresult(timeout=30)
    assert tasks.seen == [(1, 0), ("fail", 'ValueError: a "reason" \u00e9')]


async def test_a_step_with_an_oversized_result_succeeds(app: TaskQ, tasks: Tasks) -> None:
    """The step succeeds, so steps that do not use its result run. A step that uses its result fails with the reason."""

    @app.task(name="large", max_result_bytes=10)
    async def large(size: int) -> str:
        return "x" * size

    @app.task(name="first")
    async def first(texts: list[str]) -> str:
        return texts[0]

    add = tasks.add
    goes_on = await (large.s(20).using(queue="other") | add.si(1)).adelay()
    alone = await chain(large.s(20)).adelay()
    taken = await (large.s(20) | add.s()).adelay()
    members = await group(large.s(size).using(queue=name) for size, name in ((1, "default"), (20, "other"))).adelay()
    gathered = await chord((large.s(size) for size in (1, 20)), first.s()).adelay()

    await adrain(app, raises=False)

    assert await goes_on.aresult(timeout=30) == 1
    for handle, task in ((alone, f"{alone.id}.large' in queue 'default'"), (members, "group.1' in queue 'other'")):
        with pytest.raises(ResultTooLargeError, match=task):
            await handle.aresult(timeout=30)
    for handle in (taken, gathered):
        with pytest.raises(WorkflowFailedError, match="not stored: 22 bytes, and the limit is 10"):
            await handle.aresult(timeout=30)
    step = (await taken.agraph()).steps[0]
    assert (step.state, step.error) == (StepState.SUCCEEDED, "its result was not stored: 22 bytes, and the limit is 10")
    inspector = Inspector(app)
    found = Dashboard(inspector).workflow_step("default", gathered.id, (await gathered.agraph()).steps[0].name)
    assert [(each.result, each.error) for each in found.members] == [
        (b'"x"', ""),
        (b"", "its result was not stored: 22 bytes, and the limit is 10"),
    ]


async def test_priority_and_expiry_apply_to_steps(app: TaskQ, tasks: Tasks) -> None:
    """Priority and expiry apply to steps as to tasks: the urgent member runs first."""
    handle = await group(tasks.add.s(1), tasks.add.s(2), tasks.add.s(3).using(priority=9, expires=600)).adelay()

    first = Inspector(app).tasks("default", TaskState.PENDING).tasks[0]
    assert first.id == f"{handle.id}.add-group.2"
    await adrain(app)

    assert await handle.aresult(timeout=30) == [1, 2, 3]


async def test_a_large_graph_is_stored_in_parts(app: TaskQ, tasks: Tasks) -> None:
    """No step starts before all parts are stored, and then all steps run."""
    workflow = Workflow("wide").step("start", tasks.add.s(0))
    for number in range(400):
        workflow.step(f"n{number}", tasks.add.s(number), after="start")
    workflow.step("end", tasks.total.si([1, 2]), after={f"n{number}": None for number in range(400)})
    handle = await workflow.adelay()

    await adrain(app)

    assert await handle.aresult(timeout=30) == 3
    assert len(tasks.seen) == 401


def test_a_damaged_workflow_does_not_stop_the_settlement_of_other_tasks(
    broker: Broker, app: TaskQ, tasks: Tasks
) -> None:
    """The task of a step of a damaged workflow is settled, and other tasks of the same batch too."""
    queue = broker.queue
    handle = chain(tasks.add.s(1), tasks.add.s(2)).delay()
    broker.raw.delete(queue.workflow(handle.id))
    broker.raw.set(queue.workflow(handle.id), "not a hash")
    tasks.add.delay(5)
    ids = broker.dequeue(now_ns=None)  # type: ignore[arg-type]  # Redis's own clock
    assert len(ids) == 2

    codes = broker.run(runs.settle(queue, [_complete(each) for each in ids], owner="w1"))

    assert codes == "11"
    assert broker.raw.llen(queue.active) == 0


def _complete(task_id: str) -> runs.Settlement:
    return runs.Settlement(task_id, runs.Outcome.COMPLETE, 1, b"m", seconds=60, result=b"1")


def test_workflows_are_deleted_after_their_retention(broker: Broker, app: TaskQ, tasks: Tasks) -> None:
    queue = broker.queue
    handles = [group(tasks.add.s(each) for each in range(3)).kept(10).delay() for _ in range(3)]
    for _ in range(3):
        for task_id in broker.dequeue(now_ns=None):  # type: ignore[arg-type]
            broker.run(runs.settle(queue, [_complete(task_id)], owner="w1"))
    assert {each.name: each.state for each in handles[0].graph().steps} == {"group": StepState.SUCCEEDED}

    assert broker.at(NOW_NS, workflows.clean_workflows(queue, limit=2)) == 2
    assert broker.at(NOW_NS, workflows.clean_workflows(queue)) == 1

    left = [key for key in broker.dump() if b"wf" in key]
    assert left == []
