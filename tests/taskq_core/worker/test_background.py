"""A worker in a thread of a process that does something else."""

import threading
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core import ConfigurationError, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_core.worker import Worker, WorkerConfig, background
from taskq_core.worker.background import BackgroundWorker, Pause
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import until_blocking, until_released

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: RedisServer) -> Any:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=60)
    yield app
    app.close()


def make(app: TaskQ, **config: Any) -> Callable[[], Worker]:
    return lambda: Worker(app, WorkerConfig.from_settings(app.settings, **config))


def test_a_background_worker_runs_tasks_until_it_is_stopped(app: TaskQ) -> None:
    names: list[str] = []

    @app.task(name="background:work", retention=60)
    def work() -> None:
        names.append(threading.current_thread().name)

    worker = BackgroundWorker(make(app))
    worker.start()
    work.delay().result(timeout=30)

    assert worker.stop(30)
    assert not worker.is_alive
    assert names != [threading.current_thread().name]


def test_a_running_task_is_returned_after_the_shutdown_grace(app: TaskQ) -> None:
    runs, release = threading.Event(), threading.Event()

    @app.task(name="background:hold")
    def hold() -> None:
        runs.set()
        until_released(release)  # an interruption ends it

    worker = BackgroundWorker(make(app, shutdown_grace=0.1))
    worker.start()
    handle = hold.delay()
    assert runs.wait(30)

    assert worker.stop(30)

    info = Inspector(app).task(handle.queue, handle.id)
    assert (info.state, info.retried) == (TaskState.PENDING, 0)


def test_abort_returns_running_tasks_and_does_not_wait(app: TaskQ) -> None:
    runs, release = threading.Event(), threading.Event()

    @app.task(name="background:deaf")
    def deaf() -> None:
        runs.set()
        release.wait(60)  # inside this call nothing interrupts it

    worker = BackgroundWorker(make(app, shutdown_grace=60, interrupt_grace=0.05))
    worker.start()
    handle = deaf.delay()
    assert runs.wait(30)
    inspector = Inspector(app)
    try:
        worker.abort()
        until_blocking(lambda: inspector.task(handle.queue, handle.id).state is TaskState.PENDING, "it is given back")
    finally:
        release.set()
    assert worker.stop(30)


def test_a_worker_that_could_not_start_is_started_again(app: TaskQ, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "FIRST_PAUSE_S", 0.01)
    away = TaskQ("redis://127.0.0.1:1/0", prefix="asynq")
    made: list[TaskQ] = []

    def try_both() -> Worker:
        made.append(away if len(made) < 2 else app)
        return Worker(made[-1], WorkerConfig(wait_for_redis=False))

    @app.task(name="background:work", retention=60)
    def work() -> int:
        return 1

    worker = BackgroundWorker(try_both)
    worker.start()

    assert work.delay().result(timeout=30) == 1
    assert made == [away, away, app]
    assert worker.stop(30)


def test_a_worker_with_invalid_settings_is_logged_and_not_retried(app: TaskQ, caplog: pytest.LogCaptureFixture) -> None:
    def refuse() -> Worker:
        raise ConfigurationError("no such queue")

    worker = BackgroundWorker(refuse)
    worker.start()
    until_blocking(lambda: not worker.is_alive, "it ends by itself")  # a stop may come before it has begun

    assert worker.stop(30)
    assert [record.getMessage() for record in caplog.records] == ["the worker cannot start: no such queue"]


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_background_worker_stopped_before_its_start_creates_no_worker(app: TaskQ, has_begun: bool) -> None:
    asked = threading.Event()

    def never(timeout_s: float) -> bool:
        asked.set()
        return False

    def fail() -> Worker:
        raise AssertionError("a worker is made")

    worker = BackgroundWorker(fail, may_begin=never)
    if has_begun:
        worker.start()
        assert asked.wait(30)

    assert worker.stop(30)
    assert not worker.is_alive


def test_a_stop_during_the_creation_of_the_worker_takes_effect(app: TaskQ) -> None:
    making, go = threading.Event(), threading.Event()

    def slowly() -> Worker:
        making.set()
        assert go.wait(30)
        return Worker(app)

    worker = BackgroundWorker(slowly)
    worker.start()
    assert making.wait(30)
    assert not worker.stop(0.01)
    go.set()

    assert worker.stop(30)


def test_pauses_double_up_to_a_minute_and_are_reset_after_a_long_run() -> None:
    pause = Pause()

    assert [pause.after(0) for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert [pause.after(60), pause.after(59)] == [1, 2]
    assert pause.count == 10
