"""Test workers that are killed, frozen and continued: others run their tasks, and outdated settlements are refused."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.wire import QueueKeys
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    WorkerProcess,
    lapse,
    marks,
    receives_cancels,
    state_of,
    stored,
    until_blocking,
)


def waiting(server: RedisServer) -> list[dict[str, Any]]:
    """Return the connections that wait for a wake token."""
    return [each for each in server.client.client_list() if each["cmd"] == "blpop"]


def test_a_worker_killed_while_it_waits_loses_no_task(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, start_process: Callable[..., WorkerProcess]
) -> None:
    """Its connection ends, and the next worker gets later tasks at its first request."""
    first = start_process(**LONG_LEASE, safety_net=600)
    until_blocking(lambda: waiting(redis_server))
    first.signal(signal.SIGKILL)
    first.wait()
    handle = app.remote("quick").delay(name="x")
    start_process(**LONG_LEASE, safety_net=600)
    handle.result(30)

    assert handle.refresh().retried == 0


@pytest.mark.slow
def test_the_task_of_a_worker_killed_during_a_cancellation_is_recovered(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, start_process: Callable[..., WorkerProcess]
) -> None:
    """The cancellation applies only to the killed run. The next run continues, and can be cancelled again."""
    handle = app.remote("wait", retention=600).delay(name="work", until="never")
    first = start_process(**LONG_LEASE)
    until_blocking(lambda: marks(redis_server, "work"))
    first.signal(signal.SIGSTOP)
    first.wait_until_stopped()
    assert handle.cancel(keep=False)
    first.signal(signal.SIGKILL)
    first.wait()
    lapse(redis_server, queue)
    start_process(**LONG_LEASE)
    until_blocking(lambda: marks(redis_server, "work").count("started 2") == 1 and receives_cancels(redis_server))

    assert state_of(redis_server, queue, handle.id) == "active"
    assert handle.cancel(retry=True)
    until_blocking(lambda: marks(redis_server, "work")[-1] == "cancelled")
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "retry")
    assert stored(redis_server, queue, handle.id).retried == 2


@pytest.mark.slow
def test_a_task_whose_worker_is_killed_runs_again_only_in_time(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, start_process: Callable[..., WorkerProcess]
) -> None:
    """The next worker that gets the task archives it as expired."""
    first = start_process(**LONG_LEASE)
    work = app.remote("wait", retention=600).using(expires=4)
    others = [app.remote("wait", retention=600).delay(name=f"other {n}", until="go") for n in range(3)]
    handle = work.delay(name="work", until="never")
    until_blocking(lambda: marks(redis_server, "work") and all(marks(redis_server, f"other {n}") for n in range(3)))
    first.signal(signal.SIGKILL)
    first.wait()
    lapse(redis_server, queue)
    redis_server.client.set("go", "1")
    expires_s = int(stored(redis_server, queue, handle.id).headers["taskq-expires"])
    until_blocking(lambda: redis_server.client.time()[0] > expires_s)

    start_process()
    until_blocking(lambda: state_of(redis_server, queue, handle.id) == "archived")
    for other in others:
        other.result(20)

    assert marks(redis_server, "work") == ["started 1"]
    assert "expired" in stored(redis_server, queue, handle.id).error_msg
    assert {state_of(redis_server, queue, other.id) for other in others} == {"completed"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["die", "quick"])
def test_kills_between_archiving_and_the_dead_letter_lose_and_repeat_nothing(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, start_process: Callable[..., WorkerProcess], kind: str
) -> None:
    """Workers die while they run tasks and while they handle dead letters. Each dead letter is handled once."""
    name = "die" if kind == "die" else "fails_for_good"
    task = app.remote(name, max_retry=0, dead_letter="mark_dead_letter", retention=600)
    handles = [task.delay(name="work") for _ in range(6)]
    if kind == "quick":
        redis_server.client.set("kill-letters", 2)
    processes = 0
    deadline = time.monotonic() + 90
    config: dict[str, Any] = {"concurrency": 2, "lease": 1, "heartbeat": 0.3, "dead_letters_every": 0.2}
    worker = start_process(has_to_start=False, **config)  # it may die before it reports its start
    while redis_server.client.zcard(queue.completed) < 6:
        assert time.monotonic() < deadline
        if worker.process.poll() is not None:
            processes += 1
            worker = start_process(has_to_start=False, **config)
        claimed = redis_server.client.zrange(queue.letters, 0, -1)
        if processes and claimed:  # also of a running worker, so that two workers handle the same dead letter
            redis_server.client.zadd(queue.letters, dict.fromkeys(claimed, 1), xx=True)
        time.sleep(0.02)
    until_blocking(lambda: not redis_server.client.exists(queue.letters))

    assert processes >= (3 if kind == "die" else 2)
    # A dead-letter task may run again if its process died, but there are exactly six of them.
    assert set(marks(redis_server, "letters")) == {handle.id for handle in handles}
    assert redis_server.client.zcard(queue.archived) == 6
    assert redis_server.client.zcard(queue.completed) == 6


@pytest.mark.slow
def test_a_kill_loses_no_task_and_an_urgent_task_runs_again_first(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys, start_process: Callable[..., WorkerProcess]
) -> None:
    """Only tasks that ran at the kill may run twice. The urgent one runs again before the backlog."""
    urgent = app.remote("wait", priority=9, retention=600).delay(name="urgent", until="go")
    first = start_process(concurrency=1, **LONG_LEASE)
    until_blocking(lambda: marks(redis_server, "urgent"))
    brief = app.remote("brief", retention=600)
    handles = list(app.client.enqueue_many(brief.s(name="load", seconds=0.05) for _ in range(200)))
    first.signal(signal.SIGKILL)
    first.wait()
    lapse(redis_server, queue)
    redis_server.client.set("go", "1")

    start_process(concurrency=1)
    urgent.result(30)
    done = redis_server.client.zcard(queue.completed)
    start_process(concurrency=20)  # runs the rest faster
    until_blocking(lambda: redis_server.client.zcard(queue.completed) == 201, within=60)

    assert done < 150, "the urgent task ran after the backlog"
    assert marks(redis_server, "urgent").count("ended") == 1
    assert Counter(marks(redis_server, "load")) == Counter({handle.id: 1 for handle in handles})
