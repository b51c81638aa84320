"""Run workers in tests: on the test's own event loop, or in separate processes."""

import asyncio
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from taskq_core import TaskContext, TaskQ
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.pipelines import Pipeline
from taskq_core.clock import SYSTEM_CLOCK
from taskq_core.service.loop import Signal
from taskq_core.wire import QueueKeys, ServerInfo, TaskMessage, decode_message
from taskq_core.worker import Worker, WorkerConfig, WorkerListener
from taskq_core.worker.context import WorkerContext
from tests.redis_server import RedisServer

PATIENCE_S = 60.0
"""Seconds after which a condition counts as never met. Nothing waits that long when all is well."""

SHRUNK: dict[str, Any] = {
    "lease": 2,
    "heartbeat": 0.5,
    "lease_grace": 1,
    "recover_every": 0.2,
    "leader_lease": 1,
    "shutdown_grace": 10,
}
"""Times of a worker in tests; a lost task is back after at most four seconds instead of a minute."""

LEASE_S = 30
"""Seconds of a lease of workers on the test's loop."""

STEADY: dict[str, Any] = {"lease": 30, "heartbeat": 5, "lease_grace": 30, "recover_every": 0.2, "leader_lease": 1}
"""Times of a worker on the test's loop. Leases are as long as in production, so that a slow machine loses none."""

PROGRAM = Path(__file__).parents[2] / "processes/worker/worker_process.py"

LONG_LEASE: dict[str, Any] = {"lease": 30, "heartbeat": 0.5}
"""Settings of workers that are killed. Leases are long enough for slow machines, and `lapse` ends them."""


async def until(condition: Callable[[], Any], what: str = "the condition", *, within: float = PATIENCE_S) -> Any:
    """Wait until the condition (or what it returns, awaited) is true; return it. Fail after `within` seconds."""
    deadline = time.monotonic() + within
    while True:
        value = condition()
        if inspect.isawaitable(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        await asyncio.sleep(0.005)


def until_blocking(condition: Callable[[], Any], what: str = "the condition", *, within: float = PATIENCE_S) -> Any:
    """Wait as `until`, without an event loop."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {within} s: {what}"
        time.sleep(0.005)
    return value


def until_released(release: threading.Event | None = None) -> None:
    """Block the thread until the event is set, or until a worker interrupts the thread."""
    while release is None or not release.is_set():
        time.sleep(0.001)


class Ends(WorkerListener):
    """Record how each run ended. The listener is called before the outcome is stored."""

    per_task = True

    def __init__(self) -> None:
        self.started_ids: list[str] = []
        self.ends: list[tuple[str, str]] = []
        self.errors: list[BaseException | None] = []
        self.workers: list[Any] = []

    def started(self, worker: Any) -> None:
        self.workers.append(worker)

    def task_started(self, context: TaskContext) -> None:
        self.started_ids.append(context.id)

    def task_ended(self, context: TaskContext, outcome: str, duration_s: float, error: BaseException | None) -> None:
        self.ends.append((context.id, outcome))
        self.errors.append(error)

    def of(self, task_id: str) -> list[str]:
        """Outcomes of one task, in order."""
        return [outcome for each, outcome in self.ends if each == task_id]


def context_of(
    app: TaskQ, runner: Any = None, *, clock: Any = SYSTEM_CLOCK, token: str = "w", **config: Any
) -> WorkerContext:
    """Return the context for parts of a worker that run without one."""
    runner = runner or AsyncRunner(app.runtime.endpoint)
    return WorkerContext(app, WorkerConfig(**config), runner, token=token, clock=clock)


def unled() -> Any:
    """Return a stand-in for the leadership of a queue, for services that do not use it."""
    return SimpleNamespace(signal=Signal)


class Runner:
    """Starts workers on the test's loop and ends them with the test."""

    def __init__(self, app: TaskQ, times: dict[str, Any] = STEADY) -> None:
        self.app = app
        self.times = times
        self.running: list[tuple[Worker, asyncio.Task[int]]] = []

    async def __call__(
        self, *, app: TaskQ | None = None, listener: WorkerListener | None = None, **config: Any
    ) -> Worker:
        """Start a worker and return it once it fetches."""
        worker = Worker(app or self.app, WorkerConfig(**{**self.times, **config}), listener=listener)
        running = asyncio.create_task(worker.arun())
        self.running.append((worker, running))
        await until(lambda: worker.status != "new" or running.done(), "the worker starts")
        assert not running.done(), "the worker ended at once"
        return worker

    def ending(self, worker: Worker) -> "asyncio.Task[int]":
        """The asyncio task of a worker, whose result is its exit status."""
        return next(running for each, running in self.running if each is worker)

    async def stop(self, worker: Worker) -> int:
        """Stop a worker gracefully and return its exit status."""
        worker.stop()
        return await self.ending(worker)

    async def close(self) -> None:
        for worker, _ in self.running:
            worker.abort()
        results = await asyncio.gather(*(running for _, running in self.running), return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    """Return an application that keeps results, and that waits for a stalled Redis."""
    app = TaskQ(redis_server.url, defaults={"retention": 600, "max_retry": 3}, enqueue_timeout=PATIENCE_S)
    yield app
    app.close()


@pytest.fixture
async def start(app: TaskQ, request: pytest.FixtureRequest) -> AsyncIterator[Runner]:
    """Start workers of `app`; with the times of production where the test has a clock to advance."""
    runner = Runner(app, {} if "clock" in request.fixturenames else STEADY)
    yield runner
    await runner.close()
    await app.aclose()


@pytest.fixture
def queue(app: TaskQ) -> QueueKeys:
    """Key names of the default queue."""
    return app.runtime.keys.queue("default")


def stored(server: RedisServer, queue: QueueKeys, task_id: str) -> TaskMessage:
    """Return the stored message of a task."""
    data = server.client.hget(queue.task(task_id), "msg")
    assert isinstance(data, bytes), "the task is gone"
    return decode_message(data)


def state_of(server: RedisServer, queue: QueueKeys, task_id: str) -> str | None:
    """Return the state field of a task, or None for an unknown task."""
    state = server.client.hget(queue.task(task_id), "state")
    assert not isinstance(state, str)
    return None if state is None else state.decode()


def lapse(server: RedisServer, *queues: QueueKeys) -> None:
    """Set every lease to a minute ago, instead of waiting. The workers that held them are dead or stopped."""
    server.client.ping()  # Redis reads the last requests of a dead process before it answers this
    ended = int(server.client.time()[0]) - 60  # type: ignore[index]  # of a blocking client
    for queue in queues:
        for task_id in server.client.zrange(queue.lease, 0, -1):  # type: ignore[union-attr]  # of a blocking client
            server.client.zadd(queue.lease, {task_id: ended}, xx=True)


def push_raw(
    server: RedisServer, queue: QueueKeys, task_id: str, message: bytes, *, wake: bool = False, register: bool = True
) -> None:
    """Put a task as a producer does that knows no wake tokens."""
    pipeline = server.client.pipeline(transaction=True)
    if register:
        pipeline.sadd("asynq:queues", queue.name)
    pipeline.hset(queue.task(task_id), mapping={"msg": message, "state": "pending", "pending_since": "1"})
    pipeline.lpush(queue.pending, task_id)
    if wake:
        pipeline.lpush(queue.wake, "1")
    pipeline.execute()


class WorkerProcess:
    """A worker in a separate process, with the tasks of `tests/processes/worker/worker_process.py`.

    Args:
        server: Where its tasks note what they do.
        url: Where it works; the server's own if left out.
        harm: The damage it does to itself; see `harm.py`.
        has_to_start: Whether to wait until it has started.
        config: How it runs, beside `SHRUNK`.
    """

    def __init__(
        self,
        server: RedisServer,
        *,
        url: str | None = None,
        harm: dict[str, Any] | None = None,
        has_to_start: bool = True,
        **config: Any,
    ) -> None:
        self.server = server
        settings = {
            "url": url or server.url,
            "notes": server.url,
            "harm": harm or {},
            "config": {**SHRUNK, **config},
        }
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).parents[2] / "processes/worker/worker_process.py"),
                json.dumps(settings),
            ],
            cwd=Path(__file__).parents[3],
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.output = ""
        self._errors = threading.Thread(target=self._read_errors, daemon=True)
        self._errors.start()
        if has_to_start:
            self.wait_until_started()

    def wait_until_started(self) -> None:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line == "started\n", f"the worker did not start: {line!r} {self.output}"

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.output += line

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait_until_stopped(self) -> None:
        """Wait until it has been stopped by SIGSTOP."""
        until_blocking(
            lambda: os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT) is not None,
            "the process stops",
        )

    def wait(self) -> int:
        """Wait for its end; return the exit status."""
        status = self.process.wait(PATIENCE_S)
        self._errors.join(PATIENCE_S)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._errors.join(PATIENCE_S)
        for pipe in (self.process.stdout, self.process.stderr):
            assert pipe is not None
            pipe.close()


@pytest.fixture
def start_process(redis_server: RedisServer) -> Iterator[Callable[..., WorkerProcess]]:
    """Start worker processes on the shared server, or on the one given."""
    processes: list[WorkerProcess] = []

    def start(server: RedisServer | None = None, *, has_to_start: bool = True, **config: Any) -> WorkerProcess:
        process = WorkerProcess(server or redis_server, has_to_start=False, **config)
        processes.append(process)  # so that a process that does not start is closed too
        if has_to_start:
            process.wait_until_started()
        return process

    yield start
    for process in processes:
        process.close()


def texts(values: Any) -> list[str]:
    """Bytes that a client read, as text."""
    return [each.decode() for each in values]


def receives_cancels(server: RedisServer) -> bool:
    """Return whether the only worker has subscribed. Until then it may run tasks but misses messages."""
    return bool(server.client.pubsub_numsub("asynq:cancel")[0][1] == 1)


def receives_requests(server: RedisServer, *, workers: int = 1) -> bool:
    """Return whether this many workers have subscribed and are listed. Requests reach a worker from then on."""
    subscribed = server.client.pubsub_numsub("taskq:control")[0][1]
    shown: Any = server.client.keys("asynq:servers:*")
    return bool(subscribed == len(shown) == workers)


def status_of_worker(server: RedisServer) -> str:
    """Return the status in the only worker's presence record, or "" without one."""
    keys: Any = server.client.keys("asynq:servers:*")
    data: Any = server.client.get(keys[0]) if keys else None
    return ServerInfo.decode(data).status if data else ""


def marks(server: RedisServer, name: str) -> list[str]:
    """Return what tasks of a worker process have recorded under a name, in order."""
    return texts(server.client.lrange(f"mark:{name}", 0, -1))


@pytest.fixture
def exchanges(monkeypatch: pytest.MonkeyPatch) -> list[list[tuple[str, Any]]]:
    """Record the exchanges of all pipelines: name and reply of each operation."""
    seen: list[list[tuple[str, Any]]] = []
    exchange = Pipeline.exchange

    async def note(self: Pipeline, operations: Any, **options: Any) -> list[Any]:
        answers = await exchange(self, operations, **options)
        seen.append([(operation.name, answer) for operation, answer in zip(operations, answers, strict=True)])
        return answers

    monkeypatch.setattr(Pipeline, "exchange", note)
    return seen


Read = Callable[[str], dict[tuple[str, ...], float]]


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> Read:
    """Returns the values of a gauge by the values of its labels."""
    reader = InMemoryMetricReader()
    monkeypatch.setattr(metrics._internal, "_METER_PROVIDER", MeterProvider([reader], shutdown_on_exit=False))

    def read(name: str) -> dict[tuple[str, ...], float]:
        data = reader.get_metrics_data()
        found: dict[tuple[str, ...], float] = {}
        for resource in data.resource_metrics if data else []:
            for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
                if metric.name == name:
                    points: list[Any] = list(metric.data.data_points)
                    found |= {tuple(str(each) for each in point.attributes.values()): point.value for point in points}
        return found

    return read
