"""Test workers that are killed, stopped and replaced. No task is lost, and only tasks of killed workers run again."""

import random
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from taskq_core import TaskQ, TaskState
from taskq_core.wire import QueueKeys
from tests.processes.worker.harm import STEPS
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import (
    LONG_LEASE,
    WorkerProcess,
    lapse,
    marks,
    push_raw,
    state_of,
    stored,
    until_blocking,
)

Start = Callable[..., WorkerProcess]

pytestmark = pytest.mark.slow


def is_at_rest(server: RedisServer, queue: QueueKeys) -> bool:
    return not server.client.exists(queue.pending, queue.active, queue.lease, queue.scheduled, queue.retry)


class Load:
    """Keeps a queue filled with short tasks, each of which records its id under `mark:load`."""

    def __init__(self, app: TaskQ, server: RedisServer, queue: QueueKeys) -> None:
        self._app, self._server, self._queue = app, server, queue
        self.ids: set[str] = set()

    def fill(self, count: int) -> None:
        """Enqueue until this number of tasks is pending."""
        lacking = count - self._server.client.llen(self._queue.pending)
        brief = self._app.remote("brief", retention=600)
        calls = (brief.s(name="load", seconds=0.03) for _ in range(max(0, lacking)))
        self.ids.update(handle.id for handle in self._app.client.enqueue_many(calls))

    def runs(self) -> Counter[str]:
        """Return how often each task was started."""
        return Counter(marks(self._server, "load"))

    @property
    def completed_count(self) -> int:
        return self._server.client.zcard(self._queue.completed)


@pytest.fixture
def load(app: TaskQ, redis_server: RedisServer, queue: QueueKeys) -> Load:
    return Load(app, redis_server, queue)


def test_workers_killed_at_any_moment_lose_nothing(
    load: Load, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Each kill makes at most as many tasks run again as the worker has slots, and each of those counts as a retry."""
    kills, concurrency = 3, 4
    chance = random.Random(11)
    workers = [start_process(concurrency=concurrency) for _ in range(2)]
    for _ in range(kills):
        load.fill(150)
        wanted = load.completed_count + chance.randrange(20, 60)
        until_blocking(lambda wanted=wanted: load.completed_count >= wanted)
        victim = workers.pop(0)
        victim.signal(signal.SIGKILL)
        victim.wait()
        workers.append(start_process(concurrency=concurrency))
    until_blocking(lambda: is_at_rest(redis_server, queue))

    runs = load.runs()
    retried = {task_id: stored(redis_server, queue, task_id).retried for task_id in load.ids}
    assert load.completed_count == len(load.ids)
    assert runs.keys() == load.ids
    assert 0 < sum(retried.values()) <= kills * concurrency, (
        "some tasks must be retried, at most one for each slot of a killed worker"
    )
    # A task may be taken by a worker that dies before it starts it, so a retry need not be a run.
    assert all(runs[task_id] <= 1 + retried[task_id] for task_id in runs)


@pytest.mark.parametrize("step", STEPS)
def test_a_worker_killed_at_a_step(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, step: str
) -> None:
    """If Redis does not have the outcome, the task runs again and the retry is counted. Otherwise nothing happens."""
    dying = start_process(harm={"at": step, "signal": signal.SIGKILL}, concurrency=1, **LONG_LEASE)
    handle = app.remote("quick", retention=600).delay(name="a")

    assert dying.wait() == -signal.SIGKILL
    assert state_of(redis_server, queue, handle.id) == ("completed" if step == "settled" else "active")
    lapse(redis_server, queue)
    start_process(concurrency=1)

    assert handle.result(15) == "done"
    assert stored(redis_server, queue, handle.id).retried == (0 if step == "settled" else 1)
    assert marks(redis_server, "a") == {"dequeued": ["ran"], "settled": ["ran"]}.get(step, ["ran", "ran"])
    assert is_at_rest(redis_server, queue)


@pytest.mark.parametrize("meanwhile", ["its worker came back", "another took it"])
def test_a_recoverer_stopped_between_listing_and_moving_moves_nothing(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, meanwhile: str
) -> None:
    """Its old list of lost tasks is outdated when it continues, so the script checks again."""
    owner = start_process(
        recover_every=600, lease_grace=600
    )  # a long grace, so that the owner keeps the task although its lease expired
    handle = app.remote("wait", retention=600).delay(name="a", until="go")
    until_blocking(lambda: marks(redis_server, "a") == ["started 1"])
    owner.signal(signal.SIGSTOP)
    stopped = start_process(
        has_to_start=False, harm={"recoverer_stops": True}
    )  # it may stop before it reports its start
    stopped.wait_until_stopped()
    listed: Any = redis_server.client.zscore(queue.lease, handle.id)
    if meanwhile == "another took it":
        owner.signal(signal.SIGKILL)
        start_process(**LONG_LEASE)
        until_blocking(lambda: marks(redis_server, "a") == ["started 1", "started 2"])
    else:
        owner.signal(signal.SIGCONT)
        until_blocking(lambda: (redis_server.client.zscore(queue.lease, handle.id) or 0) > listed, "it extends")
    stopped.signal(signal.SIGCONT)
    until_blocking(lambda: marks(redis_server, "recoverer"))

    assert state_of(redis_server, queue, handle.id) == "active"
    assert redis_server.client.zscore(queue.lease, handle.id) > listed
    redis_server.client.set("go", 1)
    assert handle.result(10)
    again = ["started 2"] if meanwhile == "another took it" else []
    assert marks(redis_server, "a") == ["started 1", *again, "ended"]
    assert stored(redis_server, queue, handle.id).retried == len(again)


@pytest.mark.parametrize("step", ["starting", "dequeued", "run", "settling"])
def test_signals_at_a_step_leave_no_task_stuck(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, step: str
) -> None:
    """Two signals end the worker without a grace. Fetched tasks are settled, or returned for the next worker."""
    count, concurrency = 20, 5
    app.client.enqueue_many(app.remote("quick", retention=600).s(name="a") for _ in range(count))
    process = start_process(
        harm={"at": step, "signal": signal.SIGTERM, "times": 2}, concurrency=concurrency, has_to_start=False
    )

    assert process.wait() == 0
    assert not redis_server.client.exists(queue.active, queue.lease)
    assert redis_server.client.llen(queue.pending) + redis_server.client.zcard(queue.completed) == count
    if step == "starting":
        assert marks(redis_server, "a") == []
    start_process(burst=True)
    until_blocking(lambda: redis_server.client.zcard(queue.completed) == count)
    assert len(marks(redis_server, "a")) <= count + concurrency
    assert is_at_rest(redis_server, queue)


def test_a_rolling_deploy_under_load_runs_each_task_once(
    load: Load, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Workers are replaced one after the other, five times. The remaining worker keeps running."""
    config: dict[str, Any] = {**LONG_LEASE, "concurrency": 2}
    workers = [start_process(**config) for _ in range(2)]
    for _ in range(5):
        load.fill(2000)  # more tasks than one worker can run before the other is replaced
        old = workers.pop(0)
        old.signal(signal.SIGTERM)
        assert old.wait() == 0
        load.fill(2000)
        before = load.completed_count
        until_blocking(lambda before=before: load.completed_count > before, "its neighbour goes on")
        workers.append(start_process(**config))
    for worker in workers:
        worker.signal(signal.SIGTERM)
        assert worker.wait() == 0
        assert not redis_server.client.exists(queue.retry, queue.scheduled)
    assert not redis_server.client.exists(queue.active, queue.lease)

    runs = load.runs()
    assert len(runs) == load.completed_count == len(load.ids) - redis_server.client.llen(queue.pending)
    assert set(runs.values()) == {1}


def test_a_task_that_kills_its_worker_is_archived_in_the_end(
    app: TaskQ, start_process: Start, redis_server: RedisServer
) -> None:
    """The task exits, crashes or aborts. It is archived after `max_retry + 1` runs, and other tasks complete."""
    killers = {"exit": 9, "segfault": -signal.SIGSEGV, "abort": -signal.SIGABRT}
    poisons, neighbours = {}, []
    workers: dict[str, WorkerProcess] = {}
    statuses: dict[str, list[int]] = {how: [] for how in killers}
    config: dict[str, Any] = {**LONG_LEASE, "concurrency": 2}
    for how in killers:
        poisons[how] = app.remote("poison", queue=how, max_retry=1, retention=600).delay(name=how, how=how)
        beside = app.remote("quick", queue=how, max_retry=3, retention=600)
        neighbours += app.client.enqueue_many(beside.s(name="beside") for _ in range(10))
        # It may take the task that kills it before it reports its start.
        workers[how] = start_process(queues={how: 1}, has_to_start=False, **config)

    def all_is_over() -> bool:
        for how, worker in workers.items():  # restart dead workers, like a process manager
            if worker.process.poll() is not None:
                statuses[how].append(worker.wait())
                lapse(redis_server, app.runtime.keys.queue(how))
                workers[how] = start_process(queues={how: 1}, has_to_start=False, **config)
        return all(handle.refresh().state is TaskState.ARCHIVED for handle in poisons.values())

    until_blocking(all_is_over, "the poison is archived", within=60)

    assert [handle.result(15) for handle in neighbours] == ["done"] * len(neighbours)
    for how, handle in poisons.items():
        info = handle.refresh()
        assert marks(redis_server, how) == ["started", "started"]
        assert statuses[how] == [killers[how]] * 2
        assert info.last_error == "asynq: task lease expired: the worker that ran it was lost, and no attempt is left"
        assert info.retried == 1


def test_a_task_that_takes_all_memory_is_archived_and_its_worker_survives(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, tmp_path: Path
) -> None:
    """With a memory limit of the operating system the task fails. Tasks beside it may fail too, and complete later.

    No task stays active.
    """
    concurrency = 3
    worker = start_process(harm={"memory_mib": 400}, concurrency=concurrency)
    # Start the thread of each slot first: Python waits forever for a thread whose start fails without memory.
    first = [app.remote("plain_wait", retention=600).delay(name="first", until="on") for _ in range(concurrency)]
    until_blocking(lambda: len(marks(redis_server, "first")) == concurrency)
    redis_server.client.set("on", 1)
    assert [handle.result(10) for handle in first] == ["done"] * concurrency
    poison = app.remote("poison", max_retry=1, retention=600).delay(name="a", how="memory", until=str(tmp_path / "go"))
    until_blocking(lambda: marks(redis_server, "a"))
    beside = app.remote("quick", retention=600)
    neighbours = list(app.client.enqueue_many(beside.s(name="beside") for _ in range(50)))
    (tmp_path / "go").touch()

    until_blocking(lambda: poison.refresh().state is TaskState.ARCHIVED)
    assert [handle.result(10) for handle in neighbours] == ["done"] * 50
    assert marks(redis_server, "a") == ["started", "started"]
    assert poison.refresh().last_error.startswith("MemoryError")
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_message_larger_than_the_memory_kills_no_worker(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """Another program enqueued it. The tasks after it run, and it is set aside with its bytes."""
    large = 200_000_000
    push_raw(redis_server, queue, "large", bytes(large))
    small = app.remote("quick", retention=600).delay(name="small")

    worker = start_process(harm={"memory_mib": 300})

    assert small.result(30) == "done"
    assert redis_server.client.zrange(queue.quarantine, 0, -1) == [b"large"]
    assert redis_server.client.hstrlen(queue.quarantined("large"), "msg") == large
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_call_that_holds_the_gil_expires_no_lease_of_other_tasks(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The lock is held for less than lease and grace minus a heartbeat, so other workers recover no task of it."""
    config: dict[str, Any] = {"lease": 2, "heartbeat": 0.5, "lease_grace": 5}
    start_process(**config)
    other = app.remote("wait", retention=600).delay(name="other", until="go")
    until_blocking(lambda: marks(redis_server, "other") == ["started 1"])
    watching = start_process(**config, queues={"default": 1}, concurrency=1)
    locking = app.remote("hold_lock", retention=600, max_retry=0, timeout=1).delay(name="locking", seconds=2.6)
    until_blocking(lambda: locking.refresh().state is TaskState.ARCHIVED, "it is interrupted when the lock is free")
    now: Any = redis_server.client.time()
    until_blocking(
        lambda: (redis_server.client.zscore(queue.lease, other.id) or 0) > now[0] + 1, "it is extended again"
    )
    redis_server.client.set("go", 1)

    assert other.result(10)
    assert marks(redis_server, "other") == ["started 1", "ended"]
    assert locking.refresh().last_error == "context deadline exceeded"
    assert "no longer extends its lease" not in watching.output
    assert is_at_rest(redis_server, queue)


# --- resources of the operating system --------------------------------------------------------------------------------


def test_a_worker_without_file_descriptors_keeps_its_leases_and_continues(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys, tmp_path: Path
) -> None:
    """One of its tasks holds all descriptors. Open connections are used, and new ones are retried later."""
    worker = start_process(harm={"files": 64}, concurrency=2)
    other = start_process(queues={"elsewhere": 1, "default": 1}, concurrency=1)
    other.signal(signal.SIGTSTP)  # it takes no tasks, but would recover tasks with expired leases
    until_blocking(lambda: "no new tasks are taken" in other.output)
    greedy = app.remote("take_files", retention=600).delay(name="greedy", until=str(tmp_path / "go"))
    until_blocking(lambda: marks(redis_server, "greedy") == ["24"])  # EMFILE
    first: Any = redis_server.client.zscore(queue.lease, greedy.id)
    beside = [app.remote("quick", retention=600).delay(name="beside") for _ in range(20)]

    assert [handle.result(10) for handle in beside] == ["done"] * 20
    for client in redis_server.client.client_list():
        if client["name"] != "notes" and int(client["id"]) != redis_server.client.client_id():
            redis_server.client.client_kill_filter(
                _id=client["id"]
            )  # it reconnects with the descriptor that this frees
    until_blocking(lambda: (redis_server.client.zscore(queue.lease, greedy.id) or 0) >= first + 3, "it is extended")
    (tmp_path / "go").touch()

    assert greedy.result(10) == "done"
    assert marks(redis_server, "greedy") == ["24"]
    assert app.remote("quick", retention=600).delay(name="after").result(10) == "done"
    assert "no longer extends its lease" not in other.output
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0


def test_a_log_that_cannot_be_written_fails_no_task(
    app: TaskQ, start_process: Start, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The disk is full. Tasks run, are retried and archived as usual, and the worker exits with 0."""
    worker = start_process(harm={"log": "/dev/full"}, unknown_task_timeout=0)
    handles = [app.remote("quick", retention=600).delay(name="a") for _ in range(20)]
    unknown = app.remote("nobody-knows-it", retention=600, max_retry=0).delay()

    assert [handle.result(10) for handle in handles] == ["done"] * 20
    until_blocking(lambda: unknown.refresh().state is TaskState.ARCHIVED)
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 0
    assert "No space left on device" in worker.output, "the worker must have tried to log"
    assert is_at_rest(redis_server, queue)
