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
def test_a_worker_killed_at_a_step_of_a_chain(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, step: str
) -> None:
    """What comes after is enqueued with the settled success and not before, so it runs once in any case."""
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
"""From queue to queue: an end is told and its note dropped, a step is stored and its entry dropped."""


@pytest.mark.slow
@pytest.mark.parametrize("step", CARRYING)
def test_a_worker_killed_between_two_queues(
    app: TaskQ, start_process: Start, redis_server: RedisServer, step: str
) -> None:
    """Each step is run once, wherever on the way from queue to queue its carrier died.

    But for one that it runs just then: told of the end, the next step is in its queue before the note is forgotten.
    """
    quick = app.remote("quick")
    there = app.remote("quick", queue="other")
    # Where it dies once the second step is in its queue, it does not serve that queue: it may run no more than one.
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
def test_a_carrier_that_stood_still_changes_nothing_when_it_goes_on(
    app: TaskQ, start_process: Start, redis_server: RedisServer, step: str
) -> None:
    """Another has carried meanwhile, and the step it is about to store has run and is deleted.

    But for one that it runs just then, as above.
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

    last = (quick.si(name="last") | there.si(name="last")).delay()  # it has gone on once this is done
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
    """Many workflows over two queues, and workers that are killed: all succeed, and none has a step too many."""
    brief = app.remote("brief", retention=600)
    there = app.remote("brief", queue="other")
    handles = [
        (
            brief.si(name="x", seconds=0.01)
            | group([there.si(name="x", seconds=0.01)] * 3)
            | brief.si(name="x", seconds=0)
        )
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
    assert len(runs) - len(set(runs)) <= kills * 4, "a kill made more run again than the worker had slots"


@pytest.mark.parametrize("is_blocking", [True, False], ids=["blocking", "asyncio"])
async def test_members_that_redis_refuses_leave_the_workflow_begun(is_blocking: bool) -> None:
    """Members before them run already, so it was not simply not enqueued."""
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
