"""Test workflows on workers: the order of steps, and the state after a worker dies or stalls halfway."""

import asyncio
from typing import Any

import pytest

from taskq_core import (
    EnqueueError,
    TaskContext,
    TaskQ,
    WorkflowDamagedError,
    WorkflowDefinitionError,
    WorkflowFailedError,
)
from taskq_core.broker.operations import actions, dispatch, new_tasks, views, workflows
from taskq_core.broker.plans import run_plan
from taskq_core.broker.sync import SyncRunner
from taskq_core.doctor.reading import read_facts
from taskq_core.doctor.repair import Repairer
from taskq_core.errors import BrokerUnavailableError
from taskq_core.handles.workflow_plans import damage_named
from taskq_core.inspector import Inspector
from taskq_core.repair.reconcile import FindingKind
from taskq_core.wire import QueueKeys, decode_message
from taskq_core.workflow import StepState, Workflow, WorkflowHandle, WorkflowState, chain, chord, group
from taskq_core.workflow.dispatch import Sweep
from taskq_core.workflow.dispatch import dispatch as dispatch_plan
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    Ends,
    Runner,
    receives_cancels,
    until,
)

TWO: dict[str, int] = {"default": 1, "other": 1}


async def astates(handle: WorkflowHandle) -> dict[str, StepState]:
    return {each.name: each.state for each in (await handle.agraph()).steps}


async def test_a_step_waits_for_a_slow_step_and_a_failure_stops_the_rest(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """No other step is enqueued before the success of the first step is settled."""
    gate = asyncio.Event()

    @app.task
    async def slow(a: int) -> int:
        await gate.wait()
        return a + 1

    @app.task(max_retry=0)
    async def bad(a: int) -> int:
        raise ValueError(str(a))

    @app.task
    async def never(a: int) -> int:
        return a

    ends = Ends()
    await start(listener=ends, concurrency=5)
    handle = await (slow.s(1) | bad.s() | never.s()).adelay()
    await until(lambda: ends.started_ids, "the first step runs")

    for _ in range(4):  # let the worker's services run
        await clock.advance(10)
        assert redis_server.client.llen(queue.pending) == 0
        assert not redis_server.client.exists(queue.task(f"{handle.id}.bad"), queue.task(f"{handle.id}.never"))
    assert await astates(handle) == {
        "slow": StepState.STARTED,
        "bad": StepState.WAITING,
        "never": StepState.WAITING,
    }
    gate.set()

    with pytest.raises(WorkflowFailedError, match="step 'bad' failed: ValueError: 2"):
        await handle.aresult(timeout=60)
    assert ends.started_ids == [f"{handle.id}.slow", f"{handle.id}.bad"]
    assert (await astates(handle))["never"] is StepState.SKIPPED


async def test_the_end_of_a_workflow_wakes_the_waiting_caller(app: TaskQ, start: Runner) -> None:
    @app.task
    def add(a: int, b: int = 0) -> int:
        return a + b

    @app.task
    async def total(numbers: list[int]) -> int:
        return sum(numbers)

    await start(queues=TWO)
    handle = await (group(add.s(each).using(queue="other") for each in range(300)) | total.s() | add.s(1)).adelay()

    assert await handle.aresult(timeout=60) == sum(range(300)) + 1
    assert await asyncio.to_thread(handle.result, 60) == sum(range(300)) + 1


async def test_cancelling_a_workflow_cancels_its_running_steps(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    @app.task(max_retry=0)
    async def forever(context: TaskContext) -> None:
        await asyncio.Event().wait()

    ends = Ends()
    await start(listener=ends, queues=TWO)
    workflow = group([forever.s(), forever.s().using(queue="other")]) | forever.si()
    handle = await workflow.adelay()
    await until(lambda: len(ends.started_ids) == 2, "both members run")
    await until(lambda: receives_cancels(redis_server))

    assert await handle.acancel()

    await until(lambda: len(ends.ends) == 2, "both end")
    assert [outcome for _, outcome in ends.ends] == ["archived", "archived"]
    assert (await handle.arefresh()).state is WorkflowState.CANCELLED
    assert len(ends.started_ids) == 2


# --- workers that die or stall ----------------------------------------------------------------------------------------


# --- workers without workflows ----------------------------------------------------------------------------------------


def drain_dispatches(app: TaskQ) -> None:
    """Do what dispatchers of the queues do, without a worker."""
    keys, run = app.runtime.keys, app.runtime.runner.run
    for _ in range(3):
        for name in ("default", "go"):
            due = run(dispatch.read_due(keys.queue(name), owner="", leader_ms=1))
            run_plan(dispatch_plan(keys, keys.queue(name), due, lambda other: views.ping()), run)
            if due.steps:
                run_plan(Sweep().check(keys.queue(name), due), run)


def take_as_go_does(server: RedisServer, queue: QueueKeys) -> str:
    """Dequeue the next task as a worker in Go does, without a fence."""
    task_id: Any = server.client.rpoplpush(queue.pending, queue.active)
    server.client.hset(queue.task(task_id.decode()), "state", "active")
    server.client.hdel(queue.task(task_id.decode()), "pending_since")
    server.client.zadd(queue.lease, {task_id: 4_000_000_000})
    return str(task_id.decode())


def end_as_go_does(
    server: RedisServer, queue: QueueKeys, task_id: str, state: str, result: bytes = b"", error: str = "no way"
) -> None:
    """Complete or archive a task as a worker in Go does."""
    pipeline = server.client.pipeline(transaction=True)
    pipeline.lrem(queue.active, 0, task_id)
    pipeline.zrem(queue.lease, task_id)
    data: Any = server.client.hget(queue.task(task_id), "msg")
    message = decode_message(data)
    assert message.retention > 0, "Go would delete it at once"
    if state == "archived":
        message.error_msg = error
    pipeline.zadd(queue.completed if state == "completed" else queue.archived, {task_id: 2_500_000_000})
    pipeline.hset(queue.task(task_id), mapping={"msg": message.SerializeToString(), "state": state})
    if result:
        pipeline.hset(queue.task(task_id), "result", result)
    pipeline.execute()


@pytest.fixture
async def go_queue(app: TaskQ, start: Runner, redis_server: RedisServer) -> QueueKeys:
    """Return a paused queue that a taskq worker serves."""
    go = app.runtime.keys.queue("go")
    redis_server.client.set(go.paused, "1")
    await start(queues={"default": 1, "go": 1}, dispatch_every=0.1)
    return go


async def test_a_workflow_continues_after_a_step_that_go_ran(
    app: TaskQ, redis_server: RedisServer, go_queue: QueueKeys
) -> None:
    """The step gets the previous result as its payload, and its written result is passed to the next step."""
    seen = []

    @app.task
    async def first() -> dict[str, int]:
        return {"width": 3}

    @app.task
    async def last(size: int) -> int:
        seen.append(size)
        return size

    handle = await (first.s() | app.remote("go:resize", queue="go", retention=0).s() | last.s()).adelay()
    await until(lambda: redis_server.client.llen(go_queue.pending), "the step is in Go's queue")
    task_id = take_as_go_does(redis_server, go_queue)
    data: Any = redis_server.client.hget(go_queue.task(task_id), "msg")
    assert decode_message(data).payload == b'{"width":3}'

    end_as_go_does(redis_server, go_queue, task_id, "completed", b"9")

    assert await handle.aresult(timeout=60) == 9
    assert seen == [9]
    assert not redis_server.client.exists(go_queue.task(task_id)), (
        "a task without retention is deleted once its end is reported"
    )


async def test_a_step_may_be_in_a_queue_that_only_go_workers_serve(
    app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    """This may be the first step: the workflow is stored in the queue of the first step that has its code here."""
    go = app.runtime.keys.queue("go")

    @app.task
    async def last(size: int) -> int:
        return size + 1

    await start(dispatch_every=0.1)
    handle = await (app.remote("go:measure", queue="go").s(width=3) | last.s()).adelay()
    assert handle.queue == "default"
    await until(lambda: redis_server.client.llen(go.pending), "the step is in Go's queue")

    end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), "completed", b"9")

    assert await handle.aresult(timeout=60) == 10


async def test_a_workflow_fails_when_go_archives_its_step(
    app: TaskQ, redis_server: RedisServer, go_queue: QueueKeys
) -> None:
    handle = await chain(app.remote("go:resize", queue="go").s(width=3)).adelay()
    task_id = take_as_go_does(redis_server, go_queue)

    end_as_go_does(redis_server, go_queue, task_id, "archived")

    with pytest.raises(WorkflowFailedError, match="no way"):
        await handle.aresult(timeout=60)


async def test_a_manually_archived_step_fails_with_a_clear_error(
    app: TaskQ, redis_server: RedisServer, go_queue: QueueKeys
) -> None:
    """Go's inspector archives a task without any error text."""
    handle = await chain(app.remote("go:resize", queue="go").s(width=3)).adelay()
    task_id = take_as_go_does(redis_server, go_queue)

    end_as_go_does(redis_server, go_queue, task_id, "archived", error="")

    with pytest.raises(WorkflowFailedError, match="the task was archived by hand"):
        await handle.aresult(timeout=60)


async def test_a_workflow_fails_when_its_step_is_deleted(app: TaskQ, go_queue: QueueKeys) -> None:
    handle = await chain(app.remote("go:resize", queue="go").s(width=3)).adelay()

    await asyncio.to_thread(Inspector(app).delete_task, "go", f"{handle.id}.resize")

    with pytest.raises(WorkflowFailedError, match="the task was deleted"):
        await handle.aresult(timeout=60)


def run_as_go_does(server: RedisServer, queue: QueueKeys, task_id: str) -> None:
    """Run an archived task again as Go's inspector and asynqmon do."""
    pipeline = server.client.pipeline(transaction=True)
    pipeline.zrem(queue.archived, task_id)
    pipeline.lpush(queue.pending, task_id)
    pipeline.hset(queue.task(task_id), "state", "pending")
    pipeline.execute()


async def failed_step(
    app: TaskQ, start: Runner, server: RedisServer, archived_by: str, served_by: str
) -> tuple[WorkflowHandle, QueueKeys, str]:
    """Let the first of two steps fail in a queue that Go serves too, or Go alone. Return its workflow, queue and id."""
    go = app.runtime.keys.queue("go")

    @app.task(name="go:measure", queue="go", max_retry=0)
    async def measure() -> int:
        raise ValueError("no way")

    @app.task
    async def last(size: int) -> int:
        return size + 1

    await start(queues={"default": 1, "go": 1} if served_by == "both" else {"default": 1})
    if archived_by == "Go":
        server.client.set(go.paused, "1")
    handle = await (measure.s() | last.s()).at_home("default").adelay()
    if archived_by == "Go":
        await until(lambda: server.client.llen(go.pending), "the step is in its queue")
        end_as_go_does(server, go, take_as_go_does(server, go), "archived")
    with pytest.raises(WorkflowFailedError, match="no way"):
        await handle.aresult(timeout=60)
    server.client.set(go.paused, "1")  # from now on only Go takes tasks
    return handle, go, f"{handle.id}.measure"


WAYS = [("Go", "both"), ("Go", "Go alone"), ("taskq", "both")]


@pytest.mark.parametrize(("archived_by", "served_by"), WAYS)
async def test_a_failed_step_that_go_runs_again_continues_its_workflow(
    clock: Clock, app: TaskQ, start: Runner, redis_server: RedisServer, archived_by: str, served_by: str
) -> None:
    handle, go, task_id = await failed_step(app, start, redis_server, archived_by, served_by)

    run_as_go_does(redis_server, go, task_id)
    end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), "archived")
    await clock.advance(15)
    assert (await handle.arefresh()).state is WorkflowState.FAILED
    run_as_go_does(redis_server, go, task_id)
    end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), "completed", b"9")
    await clock.advance(15)

    assert await handle.aresult(timeout=60) == 10
    assert not redis_server.client.exists(go.failed_steps)


@pytest.mark.parametrize("then", ["pending", "active", "completed"])
@pytest.mark.parametrize(("archived_by", "served_by"), WAYS)
async def test_a_retry_of_a_failed_step_that_go_has_run_again_ends(
    clock: Clock, app: TaskQ, start: Runner, redis_server: RedisServer, archived_by: str, served_by: str, then: str
) -> None:
    """The task of the step is pending or active again, or has succeeded, when its workflow is retried."""
    handle, go, task_id = await failed_step(app, start, redis_server, archived_by, served_by)
    run_as_go_does(redis_server, go, task_id)
    if then != "pending":
        take_as_go_does(redis_server, go)
    if then == "completed":
        end_as_go_does(redis_server, go, task_id, "completed", b"9")

    await handle.aretry()
    if then == "pending":
        take_as_go_does(redis_server, go)
    if then != "completed":
        await clock.advance(1)
        end_as_go_does(redis_server, go, task_id, "completed", b"9")
    await clock.advance(15)

    assert await handle.aresult(timeout=60) == 10


async def test_a_failed_member_that_go_runs_again_completes_its_group(
    clock: Clock, app: TaskQ, start: Runner, redis_server: RedisServer
) -> None:
    go = app.runtime.keys.queue("go")

    @app.task
    async def total(sizes: list[int]) -> int:
        return sum(sizes)

    await start(queues={"default": 1})
    members = group(app.remote("go:measure", queue="go").s(number=number) for number in range(2))
    handle = await (members | total.s()).at_home("default").adelay()
    await until(lambda: redis_server.client.llen(go.pending) == 2)
    end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), "completed", b"1")
    bad = take_as_go_does(redis_server, go)
    end_as_go_does(redis_server, go, bad, "archived")
    with pytest.raises(WorkflowFailedError, match="no way"):
        await handle.aresult(timeout=60)

    run_as_go_does(redis_server, go, bad)
    end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), "completed", b"2")
    await clock.advance(15)

    assert await handle.aresult(timeout=60) == 3


async def test_a_step_whose_id_another_task_has_fails(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Its workflow would wait for it without end."""
    other = app.runtime.keys.queue("other")

    @app.task
    async def first() -> None: ...

    @app.task
    async def last() -> None: ...

    handle = await (first.s() | last.si().using(queue="other")).adelay()
    await app.remote("foreign", queue="other", task_id=f"{handle.id}.last", run_after=600).adelay()
    await start(queues=TWO)

    with pytest.raises(WorkflowFailedError, match="another task has the id of this step"):
        await handle.aresult(timeout=60)
    assert redis_server.client.exists(other.task(f"{handle.id}.last"))


@pytest.mark.parametrize("kind", ["step", "member"])
@pytest.mark.parametrize("where", ["default", "go"])
async def test_the_doctor_reports_and_repairs_a_workflow_that_waits_for_an_unlisted_step(
    app: TaskQ, redis_server: RedisServer, where: str, kind: str
) -> None:
    """Without the list of started steps, nobody would notice that Go has ended the step."""
    queue = app.runtime.keys.queue(where)

    @app.task
    async def last(size: object) -> str:
        return f"{size}"

    step = app.remote("go:measure", queue=where).s()
    handle = await ((step if kind == "step" else group([step])) | last.s()).at_home("default").adelay()
    drain_dispatches(app)
    end_as_go_does(redis_server, queue, take_as_go_does(redis_server, queue), "completed", b"9")
    assert not read_facts(app).queues[0].damage.findings
    redis_server.client.delete(queue.steps)

    facts = read_facts(app)
    (finding,) = [each for found in facts.queues for each in found.damage.findings]
    assert finding.kind is FindingKind.STEP_NOT_LISTED
    repairer = Repairer(app, facts, recheck_s=0)
    repairer.work()
    assert [each.is_done for each in repairer.repairs] == [True]
    drain_dispatches(app)

    assert {each.name: each.state for each in handle.graph().steps}["last"] is StepState.STARTED
    assert not any(found.damage.findings for found in read_facts(app).queues)


HOMES = {"home": "default", "elsewhere": "other"}
"""The queue of a moved step: the home of its workflow, or another queue."""


@pytest.mark.parametrize("where", HOMES)
@pytest.mark.parametrize("fate", ["completed", "archived", "deleted", "hash deleted"])
async def test_a_workflow_notices_the_end_of_a_step_moved_to_a_queue_of_go(
    app: TaskQ, start: Runner, redis_server: RedisServer, where: str, fate: str
) -> None:
    """This includes a deletion of its task, or of its hash alone, by other tools."""
    go = app.runtime.keys.queue("go")
    here = app.runtime.keys.queue(HOMES[where])

    @app.task
    async def last(size: int) -> int:
        return size + 1

    await app.runtime.async_client.run(actions.pause(here))
    await start(dispatch_every=0.1, queues={"default": 1})
    handle = await (app.remote("go:measure", queue=here.name).s() | last.s()).at_home("default").adelay()
    await until(lambda: redis_server.client.llen(here.pending), "the step is in its queue")
    task_id = f"{handle.id}.measure"
    await asyncio.to_thread(Inspector(app).move_task, here.name, task_id, "go")
    assert not redis_server.client.exists(here.task(task_id))
    await app.runtime.async_client.run(actions.resume(here))

    if fate.endswith("deleted"):
        redis_server.client.delete(go.task(task_id), *([go.pending] if fate == "deleted" else []))
    else:
        end_as_go_does(redis_server, go, take_as_go_does(redis_server, go), fate, b"9")

    if fate == "completed":
        assert await handle.aresult(timeout=60) == 10
    else:
        problem = "no way" if fate == "archived" else "the task was deleted"
        with pytest.raises(WorkflowFailedError, match=problem):
            await handle.aresult(timeout=60)


async def test_a_workflow_waits_until_an_interrupted_move_of_its_step_is_repeated(
    app: TaskQ, start: Runner, queue: QueueKeys
) -> None:
    """The archived original does not count as a failed step."""
    client = app.runtime.async_client

    @app.task
    async def step() -> int:
        return 7

    handle = await chain(step.s()).adelay()
    task_id = f"{handle.id}.step"
    await client.run(actions.copy_out(queue, [task_id], token="aa", target="other"))

    assert await client.run(dispatch.sweep_steps(queue)) == (1, 0, False)
    assert (await handle.arefresh()).state is WorkflowState.RUNNING
    assert await handle.aretry() == 0
    await asyncio.to_thread(Inspector(app).move_task, "default", task_id, "other")

    await start(queues={"default": 1, "other": 1}, dispatch_every=0.1)
    assert await handle.aresult(timeout=60) == 7


@pytest.mark.parametrize("first", ["move", "cancel"])
async def test_a_moved_step_is_dropped_when_its_workflow_is_cancelled(
    app: TaskQ, start: Runner, redis_server: RedisServer, first: str
) -> None:
    seen: list[str] = []

    @app.task
    async def step() -> None:
        seen.append("step")

    @app.task
    async def other() -> None:
        seen.append("other")

    handle = await chain(step.s()).adelay()
    inspector = Inspector(app)
    steps = [
        lambda: inspector.move_task("default", f"{handle.id}.step", "third"),
        handle.cancel,
    ]
    for each in steps if first == "move" else steps[::-1]:
        await asyncio.to_thread(each)
    await other.using(queue="third").adelay()

    ends = Ends()
    await start(listener=ends, queues={"third": 1})
    await until(lambda: seen, "the task behind it has run")

    assert seen == ["other"]
    assert not redis_server.client.exists(app.runtime.keys.queue("third").task(f"{handle.id}.step"))


async def test_a_step_in_a_removed_queue_has_failed(app: TaskQ, start: Runner, redis_server: RedisServer) -> None:
    """Its workflow in another queue ends and can be retried. Pending reports are sent, and no keys are left."""

    @app.task
    async def one() -> int:
        return 1

    await start(dispatch_every=0.1)
    handle = await (one.s().using(queue="gone") | one.si()).at_home("default").adelay()
    await until(lambda: redis_server.client.llen("asynq:{gone}:pending"), "the step is in the other queue")

    assert await asyncio.to_thread(Inspector(app).remove_queue, "gone", force=True) == 1

    with pytest.raises(WorkflowFailedError, match="the task was deleted"):
        await handle.aresult(timeout=60)
    # Sent reports are deleted last.
    await until(lambda: not redis_server.client.keys("*{gone}*wf-notes"), "nothing is left")
    assert redis_server.client.keys("*{gone}*wf-steps") == []
    assert await handle.aretry() == 1
    await until(lambda: redis_server.client.llen("asynq:{gone}:pending"), "the step is there again")


def test_an_unreported_end_of_a_step_survives_the_removal_of_its_queue(app: TaskQ, redis_server: RedisServer) -> None:
    """An empty queue is removed without force."""
    runner = SyncRunner(app.runtime.endpoint)
    gone = app.runtime.keys.queue("gone")
    steps = {f"0 t a taskq:{{{home}}}:wf:id": 1.0 for home in ("default", "gone")}
    redis_server.client.hset(gone.workflow_notes, "0 taskq:{default}:wf:id", "d=1")
    redis_server.client.zadd(gone.steps, steps)
    runner.run(new_tasks.register_queue(app.runtime.keys.queues, ("gone",)))
    runner.close()

    Inspector(app).remove_queue("gone")

    assert redis_server.client.hlen(gone.workflow_notes) == 1
    assert redis_server.client.zrange(gone.steps, 0, -1) == [b"0 t a taskq:{default}:wf:id"], "its own are gone"


# --- clients that die, and what is kept -------------------------------------------------------------------------------


@pytest.mark.parametrize("face", ["blocking", "coroutine"])
@pytest.mark.parametrize("what", ["generator raises", "chain", "chain first"])
async def test_a_group_fails_when_its_generator_of_members_raises(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, what: str, face: str
) -> None:
    """After a first batch, its steps run and the workflow fails. The caller gets an error, and no keys are left."""
    ran: list[int] = []

    @app.task(retention=0)
    async def member(a: int) -> int:
        ran.append(a)
        return a

    def members() -> Any:
        if what == "chain first":
            yield member.s(1) | member.si(2)
        for number in range(250):
            yield member.s(number)
        if what == "generator raises":
            raise LookupError("no more")
        yield member.s(1) | member.si(2)

    await start(clean_every=0.2)
    workflow = chord(members(), member.si(-1)).named("cut")
    with pytest.raises((LookupError, WorkflowDefinitionError)) as raised:
        await (workflow.adelay() if face == "coroutine" else asyncio.to_thread(workflow.delay))

    runner = SyncRunner(app.runtime.endpoint)
    rows = runner.run(workflows.list_workflows(queue, skip=0, count=9)).rows
    runner.close()
    if what == "chain first":
        assert "member 0 of a streamed group must be a signature" in str(raised.value)
        assert redis_server.client.keys("*:t:*") == redis_server.client.keys("*:wf:*") == rows == []
        return
    (row,) = rows
    handle = app.workflow(row.id)
    with pytest.raises(WorkflowFailedError, match=f"the client that added members failed: {raised.type.__name__}"):
        await handle.aresult(timeout=60)
    steps = (await handle.agraph()).steps
    assert [each.state for each in steps] == [StepState.FAILED, StepState.SKIPPED]
    assert (steps[0].members, steps[0].succeeded, steps[0].failed) == (201, 200, 1)
    assert sorted(ran) == list(range(200))

    redis_server.client.zadd(queue.workflows_ended, {handle.id: 1})  # as if its retention were over
    await until(lambda: not redis_server.client.keys("*:wf:*"), "it is deleted")
    assert redis_server.client.keys("*:t:*") == []
    assert not redis_server.client.exists(queue.steps, queue.workflows_open, queue.workflows_running)


async def test_a_group_fails_when_its_client_stops_sending_members(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    @app.task
    async def member(a: int) -> int:
        return a

    handle = await group(member.s(each) for each in range(3)).adelay()
    key = queue.workflow(handle.id)
    redis_server.client.hset(key, "go0", "1")  # as if the client had not marked the group as complete
    redis_server.client.zadd(queue.workflows_open, {handle.id: 1})

    await start(dispatch_every=0.1)

    with pytest.raises(WorkflowFailedError, match="the client stopped before it had added all members"):
        await handle.aresult(timeout=60)


async def test_a_workflow_is_deleted_after_its_retention(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    @app.task
    async def member(a: int) -> int:
        return a

    handle = await group(member.s(each) for each in range(3)).kept(1).adelay()
    worker = await start(clean_every=3600)
    assert await handle.aresult(timeout=60) == [0, 1, 2]
    await start.stop(worker)

    await start(clean_every=0.2)  # deleted only now, so that slow callers can still read it
    await until(lambda: not redis_server.client.exists(queue.workflow(handle.id)), "it is deleted")

    left = [each for each in redis_server.client.scan_iter("taskq:*") if b"wf" in each and b"leader" not in each]
    assert left == []


def test_an_unreachable_redis_fails_the_enqueue_of_a_workflow() -> None:
    app = TaskQ("redis://127.0.0.1:1/0", enqueue_timeout=0.2)

    with pytest.raises(EnqueueError) as refused:
        app.remote("x").s(a=1).on_error(app.remote("y").si()).named("w").delay()

    assert refused.value.task == "w"


async def test_repeated_deliveries_between_queues_start_a_step_once(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The test delivers each message between the queues twice, and one task exists in the end."""
    runner = SyncRunner(app.runtime.endpoint)
    other = app.runtime.keys.queue("other")
    handle = await chain(app.remote("x", queue="other").s(a=1)).at_home("default").adelay()
    due = runner.run(dispatch.read_due(queue, owner="", leader_ms=1))
    now_s, steps = runner.run(dispatch.fetch_steps(queue, due.out))
    for _ in range(2):
        assert runner.run(dispatch.put_steps(other, steps, until_s=now_s + 60))
    assert redis_server.client.llen(other.pending) == 1
    redis_server.client.delete(other.pending, other.task(f"{handle.id}.x"))  # it has run
    assert runner.run(dispatch.put_steps(other, steps, until_s=now_s + 60))
    assert redis_server.client.llen(other.pending) == 0
    assert not runner.run(dispatch.put_steps(other, steps, until_s=now_s - 1)), "it is too late"
    assert [runner.run(dispatch.steps_sent(queue, steps)) for _ in range(2)] == [1, 0]
    runner.close()


async def test_a_retry_does_not_start_other_members_again(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A dispatcher died after it had stored two members. The failed member is retried, the completed one is not."""
    runner = SyncRunner(app.runtime.endpoint)
    other = app.runtime.keys.queue("other")
    remote = app.remote("x", queue="other")
    handle = await group(remote.s(a=1), remote.s(a=2), name="g").at_home("default").adelay()
    due = runner.run(dispatch.read_due(queue, owner="", leader_ms=1))
    now_s, steps = runner.run(dispatch.fetch_steps(queue, due.out))
    assert runner.run(dispatch.put_steps(other, steps, until_s=now_s + 60))
    redis_server.client.delete(other.pending, *(other.task(each.task_id.decode()) for each in steps))  # both have run
    key = queue.workflow(handle.id)
    runner.run(dispatch.record_ends(queue, [(key, "0.0", b"fwhy"), (key, "0.1", b"d=1")]))

    assert await handle.aretry() == 1
    now_s, again = runner.run(dispatch.fetch_steps(queue, [each.member for each in steps]))
    assert runner.run(dispatch.put_steps(other, again, until_s=now_s + 60))
    assert runner.run(dispatch.steps_sent(queue, again)) == 2

    assert redis_server.client.lrange(other.pending, 0, -1) == [f"{handle.id}.g.0".encode()]
    assert redis_server.client.zcard(queue.workflows_out) == 0
    runner.close()


DAMAGE = {
    "state": ("state", "odd", "unknown workflow state b'odd'"),
    "created": ("created", "soon", "field 'created' must be a time in Unix ms, got b'soon'"),
    "created too late": ("created", "9" * 30, "must be a time"),
    "no spec": ("spec", "", "field 'spec'"),
    "spec of another shape": ("spec", '{"nodes":[["a"]],"exits":0}', "field 'spec'"),
    "parents that are not there": ("spec", '{"nodes":[["a","x","",[[7,"s"]],false,false]],"exits":0}', "node 0 comes"),
    "a count": ("gt0", "many", "field 'gt0' must be a number, got b'many'"),
}


async def test_the_error_of_a_damaged_workflow_names_it(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, subtests: pytest.Subtests
) -> None:
    for field, value, words in DAMAGE.values():
        with subtests.test(field=field, value=value, words=words):
            handle = await group(app.remote("x").s(a=1), name="g").adelay()
            redis_server.client.hset(queue.workflow(handle.id), field, value)

            with pytest.raises(
                WorkflowDamagedError, match=f"workflow {handle.id} in queue 'default': damaged data in Redis"
            ) as damaged:
                await handle.agraph()

            assert words in damaged.value.reason


def test_an_outage_is_not_reported_as_damage(queue: QueueKeys) -> None:
    with pytest.raises(BrokerUnavailableError), damage_named(queue, "w"):
        raise BrokerUnavailableError("no answer")


async def test_a_result_of_an_unknown_step_is_reported_as_damage(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    handle = await group(app.remote("x").s(a=1), name="g").adelay()
    key = queue.workflow(handle.id)
    redis_server.client.hset(key, mapping={"state": "succeeded", "spec": '{"nodes":[],"exits":[3]}'})

    with pytest.raises(WorkflowDamagedError, match="there is no node 3"):
        await handle.aresult(timeout=0)


async def test_concurrency_limits_apply_to_members_of_groups(app: TaskQ, start: Runner, clock: Clock) -> None:
    """Members of two groups share the limit of their task."""
    running, most = 0, 0
    gate = asyncio.Event()

    @app.task(concurrency=2)
    async def limited(a: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await gate.wait()
        running -= 1
        return a

    @app.task
    async def first() -> int:
        return 0

    await start(concurrency=10)
    handles = [
        await (first.s() | group([limited.si(each) for each in range(10)])).adelay(),
        await group(limited.si(each) for each in range(10)).adelay(),
    ]
    await until(lambda: running == 2)
    await clock.settle()
    gate.set()

    for handle in handles:
        assert await handle.aresult(timeout=60) == list(range(10))
    assert most == 2


def test_the_end_of_a_step_counts_once_if_it_is_delivered_twice(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """A step that depends on two steps waits for both, and the workflow ends after its last step."""

    @app.task
    def step() -> int:
        return 1

    handle = (
        Workflow()
        .step("there", step.s(), queue="other")
        .step("here", step.s())
        .step("both", step.si(), after=("there", "here"))
        .at_home("default")
        .delay()
    )
    key = queue.workflow(handle.id)
    assert redis_server.client.lrange(queue.pending, 0, -1) == [f"{handle.id}.here".encode()]

    runner = SyncRunner(app.runtime.endpoint)
    for _ in range(2):  # the dispatcher died before it deleted the note
        runner.run(dispatch.record_ends(queue, [(key, "0", b"d=1")]))
    runner.close()

    graph = handle.graph()
    assert {each.name: each.state for each in graph.steps} == {
        "there": StepState.SUCCEEDED,
        "here": StepState.STARTED,
        "both": StepState.WAITING,
    }
    assert graph.info.state is WorkflowState.RUNNING
    assert redis_server.client.lrange(queue.pending, 0, -1) == [f"{handle.id}.here".encode()]
