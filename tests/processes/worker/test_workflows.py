"""Test workflows whose workers are killed or stopped."""

import signal
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import (
    EnqueueUnknownError,
    TaskQ,
)
from taskq_core.wire import QueueKeys
from taskq_core.workflow import StepState, WorkflowHandle, WorkflowState, group
from tests.processes.worker.harm import STEPS
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    PATIENCE_S,
    WorkerProcess,
    lapse,
    marks,
    until_blocking,
)

Start = Callable[..., WorkerProcess]

TWO: dict[str, int] = {"default": 1, "other": 1}


def states(handle: WorkflowHandle) -> dict[str, StepState]:
    return {each.name: each.state for each in handle.graph().steps}


@pytest.mark.slow
@pytest.mark.parametrize("step", STEPS)
def test_a_worker_is_killed_at_a_step_of_a_chain(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, step: str
) -> None:
    """The next step is enqueued together with the settlement of the step, so it runs once in any case."""
    quick = app.remote("quick", retention=600)
    dying = start_process(harm={"at": step, "signal": signal.SIGKILL}, concurrency=1, **LONG_LEASE)
    handle = (quick.si(name="a") | quick.si(name="b") | quick.si(name="c")).delay()

    assert dying.wait() == -signal.SIGKILL
    is_settled = step == "settled"
    assert states(handle)["quick-2"] is (StepState.STARTED if is_settled else StepState.WAITING)
    lapse(redis_server, queue)
    start_process(concurrency=1)

    assert handle.result(60) == "done"
    assert marks(redis_server, "a") == {"dequeued": ["ran"], "settled": ["ran"]}.get(step, ["ran", "ran"])
    assert (marks(redis_server, "b"), marks(redis_server, "c")) == (["ran"], ["ran"])


CARRYING = [
    "before:record_ends",
    "before:forget_ends",
    "before:put_steps",
    "before:steps_sent",
    "after:steps_sent",
]
"""Operations between queues: record an end and delete its note, store a step and delete its entry."""


@pytest.mark.slow
@pytest.mark.parametrize("step", CARRYING)
def test_a_worker_is_killed_between_two_queues(
    app: TaskQ, start_process: Start, redis_server: RedisServer, step: str
) -> None:
    """Each step runs once, at whichever operation the dispatcher died.

    The exception is a step that the dying worker runs at that moment: the next step may be in its queue already.
    """
    quick = app.remote("quick")
    there = app.remote("quick", queue="other")
    # If it dies after it stored the second step, it must not serve that queue, so that it runs only one step.
    queues = {"default": 1} if step.endswith("steps_sent") else TWO
    dying = start_process(harm={"at": step, "signal": signal.SIGKILL}, concurrency=1, queues=queues)
    handle = (quick.si(name="a") | there.si(name="b") | quick.si(name="c") | there.si(name="d")).delay()

    assert dying.wait() == -signal.SIGKILL
    start_process(concurrency=1, queues=TWO)

    assert handle.result(60) == "done"
    ran = {name: len(marks(redis_server, name)) for name in "abcd"}
    if step == "before:forget_ends":
        assert ran.pop("c") in (1, 2)
    assert set(ran.values()) == {1}


@pytest.mark.slow
@pytest.mark.parametrize("step", ["before:put_steps", "before:steps_sent", "before:record_ends", "before:forget_ends"])
def test_a_frozen_dispatcher_changes_nothing_when_it_continues(
    app: TaskQ, start_process: Start, redis_server: RedisServer, step: str
) -> None:
    """Another dispatcher has stored the step in the meantime, and the step has run and was deleted.

    The exception is the same as above.
    """
    quick = app.remote("quick")
    there = app.remote("quick", queue="other")
    queues = {"default": 1} if step.endswith("steps_sent") else TWO
    frozen = start_process(harm={"at": step, "signal": signal.SIGSTOP}, concurrency=1, queues=queues)
    handle = (quick.si(name="a") | there.si(name="b") | quick.si(name="c")).delay()
    frozen.wait_until_stopped()
    start_process(concurrency=1, queues=TWO)
    assert handle.result(60) == "done"

    frozen.signal(signal.SIGCONT)

    last = (
        quick.si(name="last") | there.si(name="last")
    ).delay()  # the frozen dispatcher has continued when this is done
    frozen.signal(signal.SIGTERM)
    frozen.wait()
    assert last.result(60) == "done"
    ran = {name: len(marks(redis_server, name)) for name in "abc"}
    if step == "before:forget_ends":
        assert ran.pop("c") in (1, 2)
    assert set(ran.values()) == {1}
    assert handle.refresh().state is WorkflowState.SUCCEEDED


@pytest.mark.slow
def test_workers_killed_at_any_moment_lose_no_workflow(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    """Workers of many workflows over two queues are killed. All workflows succeed, and no step is enqueued twice."""
    brief = app.remote("brief", retention=600)
    there = app.remote("brief", queue="other")
    handles = [
        (brief.si(name="x", seconds=0.1) | group([there.si(name="x", seconds=0.1)] * 3) | brief.si(name="x", seconds=0))
        .named(f"w{number}")
        .delay()
        for number in range(40)
    ]
    workers = [start_process(concurrency=4, queues=TWO) for _ in range(2)]
    kills = 0
    for share in (30, 90, 150):
        until_blocking(lambda share=share: len(marks(redis_server, "x")) >= share, "steps run")
        victim = workers.pop(0)
        victim.signal(signal.SIGKILL)
        victim.wait()
        kills += 1
        workers.append(start_process(concurrency=4, queues=TWO))

    for handle in handles:
        handle.result(60)
    runs = marks(redis_server, "x")
    assert len(set(runs)) == 40 * 5
    assert len(runs) - len(set(runs)) <= kills * 4, "more steps ran again than the killed workers had slots"


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "asyncio"])
async def test_refused_members_leave_a_started_workflow(is_blocking: bool) -> None:
    """The members before them already run, so the error must not say that the workflow was not enqueued."""
    with RedisServer(options={"maxmemory-policy": "noeviction"}) as server:
        app = TaskQ(server.url, enqueue_timeout=PATIENCE_S)
        member = app.remote("member")

        def members() -> Any:
            yield from (member.s(a=number) for number in range(200))  # the first batch
            server.command("CONFIG", "SET", "maxmemory", "1")
            yield member.s(a=200)

        async def enqueue() -> None:
            if is_blocking:
                group(members()).delay()
            else:
                await group(members()).adelay()

        with pytest.raises(EnqueueUnknownError):
            await enqueue()

        assert server.client.llen(app.runtime.keys.queue("default").pending) == 200
        await app.aclose()
        app.close()
