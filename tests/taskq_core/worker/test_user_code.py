"""Code of tasks cannot stop the worker: whatever it raises or does, its run fails, and its neighbors finish."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from taskq_core import Snooze, TaskContext, TaskQ
from taskq_core.tasks.canvas import Signature
from taskq_core.tasks.middleware import Middleware
from taskq_core.wire import QueueKeys, TaskState
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from tests.processes.worker.process_tasks import FacelessError, MuteError
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, STEADY, until, until_blocking

pytestmark = pytest.mark.redis


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.url, defaults={"retention": 600, "max_retry": 0}, enqueue_timeout=PATIENCE_S)
    yield app
    app.close()


class OddError(BaseException):
    """No `Exception`."""


class Hashless(type):
    def __hash__(cls) -> int:
        raise ValueError("hash")


class HashlessError(Exception, metaclass=Hashless):
    pass


class Nameless(type):
    @property
    def __name__(cls) -> str:  # type: ignore[override]
        raise SystemExit("name")


class NamelessError(Exception, metaclass=Nameless):
    pass


@dataclass
class Picky:
    """Cannot be made of the arguments of a task."""

    word: str

    def __post_init__(self) -> None:
        raise SystemExit("argument")


class Unwritable:
    """A model, as those of pydantic, that cannot be written as a result."""

    @classmethod
    def model_validate(cls, value: object) -> "Unwritable":
        return cls()

    def model_dump(self, **options: Any) -> Any:
        raise SystemExit("result")


def policy(retried: int, error: BaseException) -> float:
    raise SystemExit("policy")


def judge(error: BaseException) -> bool:
    raise SystemExit("judge")


class Breaking(Middleware):
    def around(self, context: TaskContext, call: Callable[[], object]) -> object:
        raise OddError("around")

    async def aaround(self, context: TaskContext, call: Any) -> object:
        raise OddError("aaround")


class BreakingCalls(Middleware):
    def enqueue(self, call: Signature[Any]) -> Signature[Any]:
        raise OddError("enqueue")


def chained() -> None:
    raise ValueError("it has a cause") from FacelessError("the cause")


async def exit_beside() -> None:
    async def beside() -> None:
        raise SystemExit("beside")

    await asyncio.gather(asyncio.Event().wait(), beside())


async def exit_in_a_callback() -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()

    def leave() -> None:
        ended.set()
        raise SystemExit("callback")

    loop.call_soon(leave)
    await ended.wait()
    raise ValueError("the callback was called")


async def stop_the_loop() -> None:
    asyncio.get_running_loop().stop()
    await asyncio.sleep(0)
    raise ValueError("the loop goes on")


async def cancel_everything() -> None:
    found = asyncio.all_tasks()
    found.remove(asyncio.current_task())  # type: ignore[arg-type]
    for task in found:
        task.cancel()
    await asyncio.sleep(0)
    raise ValueError("everything was cancelled")


async def cancel_everything_and_itself() -> None:
    for task in asyncio.all_tasks():
        task.cancel()
    await asyncio.Event().wait()


def raising(error: BaseException) -> tuple[Callable[[], None], Callable[[], Any]]:
    """A plain function and a coroutine function that raise it."""

    def plain() -> None:
        raise error

    async def coroutine() -> None:
        await asyncio.sleep(0)
        raise error

    return plain, coroutine


RAISED: dict[str, tuple[BaseException, str]] = {
    "exit": (SystemExit(3), "SystemExit: 3"),
    "interrupt": (KeyboardInterrupt(), "KeyboardInterrupt"),
    "generator exit": (GeneratorExit("x"), "GeneratorExit: x"),
    "cancelled": (asyncio.CancelledError(), "CancelledError (not cancelled by the worker)"),
    "base": (OddError("x"), "OddError: x"),
    "mute": (MuteError(), "MuteError: (its text cannot be read)"),
    "faceless": (FacelessError("x"), "FacelessError: x"),
    "hashless": (HashlessError("x"), "RuntimeError: HashlessError: x"),
    "nameless": (NamelessError("x"), "RuntimeError: NamelessError: x"),
    "group": (BaseExceptionGroup("g", [SystemExit(3), FacelessError("x")]), "BaseExceptionGroup: g (2 sub-exceptions)"),
}
"""The exception that a function raises, and the stored error."""

DONE: dict[str, tuple[Callable[..., Any], dict[str, Any], str, str]] = {
    "cause": (chained, {}, "archived", "ValueError: it has a cause"),
    "policy": (raising(OddError("x"))[0], {"max_retry": 3, "retry_delay": policy}, "retry", "OddError: x"),
    "judge": (raising(OddError("x"))[0], {"max_retry": 3, "is_failure": judge}, "retry", "OddError: x"),
    "after": (
        raising(Snooze(after=FacelessError()))[0],  # type: ignore[arg-type]  # what is tested
        {},
        "archived",
        "RuntimeError: Snooze, but the outcome of the run cannot be decided: SystemExit: class",
    ),
    "beside": (exit_beside, {}, "archived", "SystemExit: beside"),
    "callback": (exit_in_a_callback, {}, "archived", "ValueError: the callback was called"),
    "loop": (stop_the_loop, {}, "archived", "ValueError: the loop goes on"),
    "all": (cancel_everything, {}, "archived", "ValueError: everything was cancelled"),
    "all and itself": (
        cancel_everything_and_itself,
        {},
        "archived",
        "CancelledError (not cancelled by the worker)",
    ),
}
"""A function, the options of its task, the final state, and the stored error."""


class WorkerThread:
    """A worker that runs in a thread as it does in a process: on its own event loop."""

    def __init__(self, app: TaskQ, **config: Any) -> None:
        self.worker = Worker(app, WorkerConfig(**{**STEADY, "lease": 3600, **config}))
        self.status: int | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        self.status = self.worker.run()

    def __enter__(self) -> "WorkerThread":
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.worker.stop()
        self._thread.join(PATIENCE_S)


class Neighbors:
    """A coroutine and a plain function that run beside something else."""

    def __init__(self, app: TaskQ) -> None:
        self._runs = threading.Semaphore(0)
        self._until = ""

        @app.task(name="beside:coroutine")
        async def coroutine(name: str) -> str:
            self._runs.release()
            await until(lambda: self._until == name)
            return name

        @app.task(name="beside:plain")
        def plain(name: str) -> str:
            self._runs.release()
            until_blocking(lambda: self._until == name)
            return name

        self._tasks = (coroutine, plain)

    def begin(self, name: str) -> None:
        self._handles = [task.delay(name) for task in self._tasks]
        for _ in self._handles:
            assert self._runs.acquire(timeout=PATIENCE_S), f"{name}: its neighbors do not run"

    def finish(self, name: str) -> None:
        self._until = name
        assert [handle.result(timeout=PATIENCE_S) for handle in self._handles] == [name, name]


def test_a_task_with_faulty_code_fails_and_other_tasks_finish(
    app: TaskQ, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The worker keeps running, and stops cleanly on request."""
    neighbors = Neighbors(app)
    calls: dict[str, Signature[Any]] = {}
    expected: dict[str, tuple[str, str]] = {}
    for name, (error, text) in RAISED.items():
        for kind, function in zip(("plain", "coroutine"), raising(error), strict=True):
            calls[f"{name}: {kind}"] = app.task(function, name=f"{name}:{kind}").s()
            expected[f"{name}: {kind}"] = ("archived", text)
    for name, (function, options, state, text) in DONE.items():
        calls[name] = app.task(function, name=name.replace(" ", ":"), **options).s()
        expected[name] = (state, text)

    @app.task(name="picky")
    def picky(argument: Picky) -> None: ...

    @app.task(name="unwritable")
    def unwritable() -> Any:
        return Unwritable()

    for name, call, text in (
        ("argument", app.remote(picky.name).s(argument={"word": "x"}), "SystemExit: argument"),
        (
            "result",
            unwritable.s(),
            "the task returned, but the outcome of the run cannot be decided: SystemExit: result",
        ),
    ):
        calls[name], expected[name] = call, ("archived", text)
    for kind, function in zip(("around", "aaround"), raising(ValueError()), strict=True):
        task = app.task(function, name=kind)
        app.use(Breaking(), task=task)
        calls[kind], expected[kind] = task.s(), ("archived", f"OddError: {kind}")

    ended: dict[str, tuple[str, str]] = {}
    with WorkerThread(app, concurrency=5) as running:
        for name, call in calls.items():
            neighbors.begin(name)
            handle = app.enqueue(call)
            info = until_blocking(
                lambda handle=handle: (
                    (found := handle.refresh()).state in (TaskState.RETRY, TaskState.ARCHIVED) and found
                ),
                name,
            )
            ended[name] = (info.state.value, info.last_error)
            neighbors.finish(name)

    assert ended == expected
    assert running.status == 0
    assert not redis_server.client.exists(queue.active)


def test_faulty_hooks_do_not_stop_a_worker(app: TaskQ) -> None:
    """If a hook raises, the next one is called, and a dead letter that cannot be sent is tried again."""
    hooks: list[str] = []

    @app.on_error
    def plain(error: BaseException, context: TaskContext) -> None:
        hooks.append("plain")
        raise FacelessError("hook")

    @app.on_error
    async def coroutine(error: BaseException, context: TaskContext) -> None:
        hooks.append("coroutine")
        raise ValueError("hook") from FacelessError("hook")

    @app.on_error
    def last(error: BaseException, context: TaskContext) -> None:
        hooks.append("last")

    @app.on_archived
    async def archived(task: Any) -> None:
        hooks.append("archived")
        asyncio.get_running_loop().stop()

    @app.task(name="letter", max_retry=0)
    def letter(task_id: str) -> None: ...

    app.use(BreakingCalls(), task="letter")

    @app.task(name="fail", dead_letter=letter)
    def fail() -> None:
        raise MuteError

    neighbors = Neighbors(app)
    with WorkerThread(app, concurrency=3, dead_letters_every=0.05) as running:
        neighbors.begin("x")
        fail.delay()
        until_blocking(lambda: hooks.count("archived") > 1, "the dead letter is tried again")
        neighbors.finish("x")

    assert [name for name in hooks if name != "archived"] == ["plain", "coroutine", "last"]
    assert running.status == 0


@pytest.mark.parametrize("when", ["opens", "closes"])
def test_sys_exit_in_a_lifespan_ends_the_worker_gracefully(app: TaskQ, when: str) -> None:
    @app.worker_lifespan
    async def broken() -> AsyncIterator[None]:
        if when == "opens":
            raise SystemExit(0)
        yield
        raise asyncio.CancelledError

    @app.task(name="work")
    def work() -> str:
        return "done"

    with WorkerThread(app) as running:
        if when == "closes":
            assert work.delay().result(timeout=PATIENCE_S) == "done"
        else:
            until_blocking(lambda: running.status is not None)

    assert running.status == 1


def test_faulty_tasks_do_not_stop_a_worker_in_a_thread(app: TaskQ) -> None:
    """The loop of a worker beside a web server is left by what its tasks do as little as that of a process."""
    stop = app.task(stop_the_loop, name="stop")
    neighbors = Neighbors(app)
    worker = BackgroundWorker(lambda: Worker(app, WorkerConfig(**{**STEADY, "lease": 3600})))
    worker.start()

    neighbors.begin("x")
    handle = stop.delay()
    until_blocking(lambda: handle.refresh().state is TaskState.ARCHIVED)
    neighbors.finish("x")

    assert worker.report()[1]["restarts"] == 0
    assert worker.stop(PATIENCE_S)
