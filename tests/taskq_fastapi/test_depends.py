"""Test `Depends` in tasks: injected values, cleanup after a run, and errors when a task is defined."""

import asyncio
import contextvars
import functools
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from typing import Annotated, Any

import pytest
from fastapi import Cookie, Depends, FastAPI, Header, Query, Request, Response, Security, WebSocket
from fastapi.testclient import TestClient

from taskq_core import (
    ConfigurationError,
    Discard,
    Snooze,
    TaskArgumentsError,
    TaskCancelledError,
    TaskContext,
    TaskDefinitionError,
    TaskQ,
)
from taskq_core.broker.aio import AsyncRunner
from taskq_core.testing import TaskRun, adrain, capture, drain, eager
from taskq_core.worker.executor import Executor
from taskq_fastapi import INJECTED, TaskDependencies, enable_depends
from tests.rows import rows
from tests.taskq_fastapi import late_annotations

TOUCHED: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_touched() -> None:
    TOUCHED.clear()


@pytest.fixture
def taskq(fake_redis: Any) -> TaskQ:
    return TaskQ(fake_redis, defaults={"retention": 60, "max_retry": 0})


@pytest.fixture
def depends(taskq: TaskQ) -> TaskDependencies:
    return enable_depends(taskq)


@pytest.fixture(params=["worker", "here"])
def run(request: pytest.FixtureRequest, taskq: TaskQ, depends: TaskDependencies) -> Callable[..., list[TaskRun]]:
    """Return a function that runs the enqueued task in a worker, or in this thread."""

    def by_worker(enqueue: Callable[[], object], *, raises: bool = True) -> list[TaskRun]:
        with capture(taskq):
            enqueue()
            return drain(taskq, raises=raises)

    def here(enqueue: Callable[[], object], *, raises: bool = True) -> list[TaskRun]:
        with capture(taskq) as tasks:
            enqueue()
            return tasks.run(raises=raises)

    return by_worker if request.param == "worker" else here


class Settings:
    def __init__(self) -> None:
        TOUCHED.append("settings")
        self.name = "studio"


def plain(settings: Annotated[Settings, Depends()]) -> str:
    return f"plain of {settings.name}"


async def coroutine(settings: Annotated[Settings, Depends()]) -> str:
    await asyncio.sleep(0)
    return f"coroutine of {settings.name}"


def generator() -> Iterator[str]:
    TOUCHED.append("open plain")
    yield "plain session"
    TOUCHED.append("close plain")


async def async_generator(inner: Annotated[str, Depends(generator)]) -> AsyncIterator[str]:
    TOUCHED.append("open async")
    yield f"async session over {inner}"
    TOUCHED.append("close async")


class Prefix:
    """A dependency that is an object."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __call__(self, given: str = Depends(plain)) -> str:
        return f"{self._text} {given}"


AsyncSession = Annotated[str, Depends(async_generator)]
EXPECTED = ["plain of studio", "coroutine of studio", "async session over plain session", "the plain of studio"]
ORDER = ["settings", "open plain", "open async", "run", "close async", "close plain"]


def test_a_plain_function_receives_dependencies_of_each_kind(taskq: TaskQ, run: Any) -> None:
    """`Settings` is needed twice and called once."""
    found: list[object] = []

    @taskq.task(name="plain")
    def work(
        number: int,
        a: Annotated[str, Depends(plain)],
        b: Annotated[str, Depends(generator)],
        c: str = Depends(Prefix("the")),
    ) -> None:
        TOUCHED.append("run")
        found.extend([number, a, b, c])

    (ended,) = run(lambda: work.delay(7))  # type: ignore[call-arg]

    assert ended.outcome == "completed"
    assert found == [7, "plain of studio", "plain session", "the plain of studio"]
    assert TOUCHED == ["settings", "open plain", "run", "close plain"]


def test_a_coroutine_receives_dependencies_of_each_kind(taskq: TaskQ, run: Any) -> None:
    found: list[object] = []

    @taskq.task(name="coroutine")
    async def work(
        context: TaskContext,
        number: int,
        *,
        a: Annotated[str, Depends(plain)] = INJECTED,
        b: Annotated[str, Depends(coroutine)] = INJECTED,
        c: AsyncSession = INJECTED,
        d: str = Depends(Prefix("the")),
    ) -> None:
        TOUCHED.append("run")
        found.extend([context.name, number, a, b, c, d])

    run(lambda: work.delay(7))

    assert found == ["coroutine", 7, *EXPECTED]
    assert TOUCHED == ORDER


def logged(function: Callable[..., Any]) -> Callable[..., Any]:
    """A typical user's decorator: its wrapper is plain, whatever it decorates."""

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@functools.lru_cache
def remembered(inner: "Annotated[str, Depends(plain)]") -> str:
    return f"remembered {inner}"


def test_decorated_dependencies_return_the_same_as_in_a_route(taskq: TaskQ, run: Any) -> None:
    found: list[Any] = []

    @taskq.task
    async def work(
        first: Annotated[Any, Depends(logged(coroutine))] = INJECTED,
        second: Annotated[Any, Depends(logged(generator))] = INJECTED,
        third: Annotated[Any, Depends(logged(async_generator))] = INJECTED,
        fourth: Annotated[Any, Depends(remembered)] = INJECTED,
    ) -> None:
        found.extend((first, second, third, fourth))

    run(work.delay)

    assert [type(each) for each in found] == [str] * 4


def test_dependencies_are_no_part_of_the_payload(taskq: TaskQ, depends: TaskDependencies) -> None:
    @taskq.task(name="work")
    def work(n: int, session: str = Depends(generator)) -> None: ...

    with capture(taskq) as tasks:
        work.delay(1)
        with pytest.raises(TaskArgumentsError, match="got 'session', which the worker injects"):
            work.delay(2, session="mine")

    assert [task.payload for task in tasks.enqueued] == [b'{"n":1}']


@pytest.mark.parametrize("use_cache", [True, False])
def test_a_dependency_is_called_once_per_run_unless_its_cache_is_off(taskq: TaskQ, run: Any, use_cache: bool) -> None:
    def count() -> int:
        TOUCHED.append("count")
        return len(TOUCHED)

    def other(n: int = Depends(count, use_cache=use_cache)) -> int:
        return n

    found: list[list[int]] = []

    @taskq.task(name="work")
    def work(a: int = Depends(count, use_cache=use_cache), b: int = Depends(other)) -> None:
        found.append([a, b])

    run(lambda: [work.delay(), work.delay()])

    assert found == ([[1, 1], [2, 2]] if use_cache else [[1, 2], [3, 4]])


def test_a_dependency_can_receive_the_context(taskq: TaskQ, run: Any) -> None:
    def who(context: TaskContext) -> str:
        return context.name

    @taskq.task(name="work", retention=60)
    def work(name: str = Depends(who)) -> None:
        TOUCHED.append(name)

    run(work.delay)

    assert TOUCHED == ["work"]


def test_annotations_can_be_strings(taskq: TaskQ, run: Any) -> None:
    """Strings use names of the module or of the enclosing function. With a `Depends` default they may be unknown."""
    late = late_annotations.make(taskq, TOUCHED)

    run(lambda: late.delay(1))

    assert TOUCHED == ["1 session on engine of late, session on engine of late"]


def test_an_annotation_can_be_a_type_alias(taskq: TaskQ, run: Any) -> None:
    """Python 3.12 and later have such aliases: `type SessionDep = ...`."""

    class Alias:
        """Python stores annotations like this."""

        __value__ = AsyncSession

    @taskq.task(name="work")
    async def work(session: Alias() = INJECTED) -> None:  # type: ignore[valid-type]
        TOUCHED.append(session)

    run(work.delay)

    assert "async session over plain session" in TOUCHED


def test_an_unknown_name_in_an_annotation_is_refused(taskq: TaskQ, depends: TaskDependencies) -> None:
    def dependency(x: "Nowhere" = 1) -> None: ...  # type: ignore[name-defined] # noqa: F821

    with pytest.raises(TaskDefinitionError, match="the annotation 'Nowhere' cannot be resolved") as refusal:
        taskq.task(name="work")(_takes(str, Depends(dependency)))

    assert "dependency 'test_an_unknown_name_in_an_annotation_is_refused.<locals>.dependency'" in str(refusal.value)


# --- errors -----------------------------------------------------------------------------------------------------------


def _session(name: str, raises: BaseException | None = None, swallows: bool = False) -> Any:
    def session() -> Iterator[str]:
        try:
            yield name
        except BaseException as error:
            TOUCHED.append(f"{name} saw {error!r}")
            if raises is not None:
                raise raises from None
            if not swallows:
                raise
        else:
            TOUCHED.append(f"{name} saw nothing")

    async def asession() -> AsyncIterator[str]:
        with contextmanager_of(session) as value:
            yield value

    return session, asession


def contextmanager_of(function: Any) -> Any:
    from contextlib import contextmanager

    return contextmanager(function)()


def _forget(taskq: TaskQ) -> None:
    """Delete the task and the recorded values of the previous type."""
    taskq._tasks.pop("work", None)
    TOUCHED.clear()


def _task(taskq: TaskQ, is_coroutine: bool, is_async: bool, error: BaseException, **session: Any) -> Any:
    """Return a task that raises, with two sessions. `session` configures the inner one."""
    _forget(taskq)
    outer, inner = _session("outer")[is_async], _session("inner", **session)[is_async]

    if is_coroutine:

        @taskq.task(name="work")
        async def work(a: str = Depends(outer), b: str = Depends(inner)) -> None:
            raise error

        return work

    @taskq.task(name="work")
    def plain_work(a: str = Depends(outer), b: str = Depends(inner)) -> None:
        raise error

    return plain_work


KINDS = rows(
    ("is_coroutine", "is_async"),
    [(False, False), (True, False), (True, True)],
    ids=["plain-plain", "coroutine-plain", "coroutine-async"],
)


@KINDS
@rows(
    ("error", "session", "outcome", "raised", "seen"),
    [
        (ValueError("no"), {}, "archived", "ValueError('no')", ["ValueError('no')", "ValueError('no')"]),
        (ValueError("no"), {"raises": Discard()}, "discarded", "Discard()", ["ValueError('no')", "Discard()"]),
        (ValueError("no"), {"swallows": True}, "archived", "ValueError('no')", ["ValueError('no')", "nothing"]),
        (Snooze(60), {}, "snoozed", None, ["Snooze(60)", "Snooze(60)"]),
    ],
    ids=["passed on", "replaced", "swallowed", "snooze"],
)
def test_generators_receive_the_exception_of_the_task(
    taskq: TaskQ,
    run: Any,
    is_coroutine: bool,
    is_async: bool,
    error: BaseException,
    session: dict[str, Any],
    outcome: str,
    raised: str | None,
    seen: list[str],
) -> None:
    """Another exception is the outcome and reaches outer generators. A swallowed one does not make the run succeed."""
    work = _task(taskq, is_coroutine, is_async, error, **session)

    (ended,) = run(work.delay, raises=False)

    assert ended.outcome == outcome
    assert raised in (None, repr(ended.error))
    inner, outer = seen
    assert [f"inner saw {inner}", f"outer saw {outer}"] == TOUCHED
    if "swallows" in session:
        assert "a dependency caught this exception at its yield" in ended.error.__notes__[0]


@KINDS
def test_a_failing_clean_up_fails_the_run(taskq: TaskQ, run: Any, is_coroutine: bool, is_async: bool) -> None:
    """An example is a failed commit at the end of a session."""
    _forget(taskq)

    def session() -> Iterator[str]:
        yield "session"
        raise ConnectionError("commit failed")

    async def asession() -> AsyncIterator[str]:
        yield "session"
        raise ConnectionError("commit failed")

    dependency: Any = asession if is_async else session

    async def coroutine_work(session: str = Depends(dependency)) -> None: ...
    def plain_work(session: str = Depends(dependency)) -> None: ...

    work: Any = taskq.task(name="work")(coroutine_work if is_coroutine else plain_work)  # type: ignore[arg-type]

    (ended,) = run(work.delay, raises=False)

    assert repr(ended.error) == "ConnectionError('commit failed')"


@KINDS
def test_a_failing_dependency_fails_the_run_and_cleans_up(
    taskq: TaskQ, run: Any, is_coroutine: bool, is_async: bool
) -> None:
    _forget(taskq)
    first = _session("first")[is_async]

    def broken(session: str = Depends(first)) -> str:
        raise SystemExit("away")

    async def abroken(session: str = Depends(first)) -> str:
        raise SystemExit("away")

    dependency: Any = abroken if is_async else broken

    async def coroutine_work(session: str = Depends(dependency)) -> None:
        TOUCHED.append("run")

    def plain_work(session: str = Depends(dependency)) -> None:
        TOUCHED.append("run")

    work: Any = taskq.task(name="work")(coroutine_work if is_coroutine else plain_work)  # type: ignore[arg-type]

    (ended,) = run(work.delay, raises=False)

    assert repr(ended.error) == "SystemExit('away')"
    assert TOUCHED == ["first saw SystemExit('away')"]


def _when_told_to_end(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set once a run was interrupted: its coroutine cancelled, or its thread interrupted."""
    ended, end = asyncio.Event(), Executor.end

    def note(self: Executor, *arguments: Any, **options: Any) -> None:
        end(self, *arguments, **options)
        asyncio.get_running_loop().call_soon(
            ended.set
        )  # runs after the cancellation, which is scheduled in the same way

    monkeypatch.setattr(Executor, "end", note)
    return ended


def _when_it_listens(monkeypatch: pytest.MonkeyPatch) -> asyncio.Event:
    """Return an event that is set when the worker subscribes to cancels, because it may run tasks earlier."""
    listens, subscribe = asyncio.Event(), AsyncRunner.subscribe

    async def note(self: AsyncRunner, *channels: str) -> Any:
        subscription = await subscribe(self, *channels)
        if "asynq:cancel" in channels:
            listens.set()
        return subscription

    monkeypatch.setattr(AsyncRunner, "subscribe", note)
    return listens


@pytest.mark.parametrize("where", ["task", "dependency"])
@pytest.mark.parametrize(
    ("is_coroutine", "is_async"),
    [(False, False), (True, False), (True, True)],
    ids=["plain-plain", "coroutine-plain", "coroutine-async"],
)
async def test_an_interrupted_run_cleans_up(
    taskq: TaskQ, is_coroutine: bool, is_async: bool, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run may end in its function or in a dependency. A dependency in a thread continues to its yield."""
    enable_depends(taskq)
    first = _session("first")[is_async]
    reached, go = threading.Event(), threading.Event()
    listens = _when_it_listens(monkeypatch)

    def slow(session: str = Depends(first)) -> Iterator[str]:
        if where == "dependency":
            reached.set()
            while not go.is_set():
                time.sleep(0)  # an interruption ends it
        TOUCHED.append("slow opened")
        try:
            yield "slow"
        finally:
            TOUCHED.append("slow closed")

    async def aslow(session: str = Depends(first)) -> str:
        if where == "dependency":
            reached.set()
            await asyncio.Event().wait()
        return "slow"

    dependency: Any = aslow if is_async else slow

    async def coroutine_work(session: str = Depends(dependency)) -> None:
        reached.set()
        await asyncio.Event().wait()

    def plain_work(session: str = Depends(dependency)) -> None:
        reached.set()
        while True:
            time.sleep(0)

    work: Any = taskq.task(name="work")(coroutine_work if is_coroutine else plain_work)  # type: ignore[arg-type]

    with capture(taskq):
        handle = await work.adelay()
        draining = asyncio.create_task(adrain(taskq, raises=False))
        assert await asyncio.to_thread(reached.wait, 30)
        await asyncio.wait_for(listens.wait(), 30)
        arrived = _when_told_to_end(monkeypatch)
        assert await handle.acancel()
        await asyncio.wait_for(arrived.wait(), 30)
        go.set()
        (ended,) = await draining

    assert isinstance(ended.error, TaskCancelledError)
    assert [each.split("(")[0] for each in TOUCHED if each.startswith("first")] in (
        ["first saw CancelledError"],
        ["first saw TaskInterrupted"],
    )
    assert TOUCHED.count("slow opened") == TOUCHED.count("slow closed"), "opened although it was cancelled meanwhile"


# --- where it runs ----------------------------------------------------------------------------------------------------


def test_a_plain_function_and_its_plain_dependencies_share_a_thread(taskq: TaskQ, run: Any) -> None:
    """Some libraries require one thread, for example sqlite3."""

    def thread() -> Iterator[int]:
        yield threading.get_ident()
        TOUCHED.append(str(threading.get_ident()))

    @taskq.task(name="work")
    def work(asked_in: int = Depends(thread)) -> None:
        TOUCHED.extend([str(asked_in), str(threading.get_ident())])

    run(work.delay)

    assert len(set(TOUCHED)) == 1
    assert len(TOUCHED) == 3


def test_asynchronous_dependencies_live_on_the_event_loop_of_the_lifespan(
    taskq: TaskQ, depends: TaskDependencies
) -> None:
    """Each lives in one asyncio task, so that it can hold a task group."""
    found: list[object] = []
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable")

    @taskq.worker_lifespan
    async def opened() -> AsyncIterator[dict[str, object]]:
        yield {"loop": asyncio.get_running_loop()}

    async def grouped(context: TaskContext) -> AsyncIterator[bool]:
        variable.set("set by a dependency")
        async with asyncio.TaskGroup():
            yield asyncio.get_running_loop() is context.state["loop"]

    @taskq.task(name="coroutine")
    async def coroutine_work(is_same: bool = Depends(grouped)) -> None:
        found.extend([is_same, variable.get()])

    with capture(taskq):
        coroutine_work.delay()
        drain(taskq)

    assert found == [True, "set by a dependency"]


def test_many_runs_that_wait_for_one_resource_do_not_deadlock(taskq: TaskQ, depends: TaskDependencies) -> None:
    """Cleanup needs a thread too, and gets one even if runs that wait for the cleanup hold all threads."""
    pool = threading.Semaphore(2)

    def resource() -> Iterator[str]:
        pool.acquire()
        try:
            yield "resource"
        finally:
            pool.release()

    @taskq.task(name="work", timeout=30)
    async def work(given: str = Depends(resource)) -> None:
        await asyncio.sleep(0)
        TOUCHED.append(given)

    taskq.configure(replace(taskq.settings, concurrency=100))
    with capture(taskq):
        for _ in range(100):
            work.delay()
        drain(taskq)

    assert TOUCHED == ["resource"] * 100


async def test_a_plain_function_runs_while_an_event_loop_runs(taskq: TaskQ, depends: TaskDependencies) -> None:
    @taskq.task(name="work")
    def work(session: str = Depends(generator)) -> None:
        TOUCHED.append("run")

    with capture(taskq) as tasks:
        await work.adelay()
        await tasks.arun()
    with eager(taskq):
        await work.adelay()

    assert TOUCHED == ["open plain", "run", "close plain"] * 2


def test_an_asynchronous_dependency_of_a_plain_function_is_refused(taskq: TaskQ, depends: TaskDependencies) -> None:
    def plain_of(session: AsyncSession) -> str:
        return session

    expected = "plain function and cannot await the dependency 'async_generator'; make the task `async def`"
    with pytest.raises(TaskDefinitionError, match=expected):

        @taskq.task
        def work(given: str = Depends(plain_of)) -> None: ...

    depends.dependency_overrides[async_generator] = generator

    @taskq.task
    def other_work(given: str = Depends(plain_of)) -> str:
        return given

    assert other_work() == "plain session"
    depends.dependency_overrides.clear()
    depends.dependency_overrides[plain_of] = coroutine
    with pytest.raises(TaskDefinitionError, match="cannot await the dependency 'coroutine'"):
        other_work()


async def test_a_direct_call_receives_the_missing_dependencies(taskq: TaskQ, depends: TaskDependencies) -> None:
    @taskq.task(name="coroutine")
    async def work(n: int, session: AsyncSession = INJECTED) -> str:
        return f"{n} {session}"

    @taskq.task(name="plain")
    def plain_work(n: int, session: str = Depends(generator)) -> str:
        return f"{n} {session}"

    assert await work(1) == "1 async session over plain session"
    assert await work(1, session="mine") == "1 mine"
    assert await work(1, "mine") == "1 mine"
    assert plain_work(1) == "1 plain session"
    assert plain_work(1, "mine") == "1 mine"
    assert TOUCHED.count("close plain") == 2


# --- overrides --------------------------------------------------------------------------------------------------------


def test_overrides_replace_dependencies(taskq: TaskQ, depends: TaskDependencies, run: Any) -> None:
    """This works at any depth, and the replacement may be of another kind and have its own dependencies."""

    async def double(settings: Annotated[Settings, Depends()]) -> AsyncIterator[str]:
        yield f"double of {settings.name}"
        TOUCHED.append("close double")

    @taskq.task(name="work")
    async def work(a: str = Depends(Prefix("the"))) -> None:
        TOUCHED.append(a)

    depends.dependency_overrides[plain] = double
    run(work.delay)
    depends.dependency_overrides.clear()
    run(work.delay)

    assert TOUCHED == ["settings", "the double of studio", "close double", "settings", "the plain of studio"]


def test_a_dependency_on_the_request_works_with_an_override(taskq: TaskQ, depends: TaskDependencies) -> None:
    """One dependency can then serve routes, where a request exists, and tasks."""

    def tenant(request: Request) -> str:
        return request.headers["x-tenant"]

    def tenant_of_task(context: TaskContext) -> str:
        return context.headers["x-tenant"]

    depends.dependency_overrides[tenant] = tenant_of_task

    @taskq.task(name="work", headers={"x-tenant": "7"})
    def work(given: str = Depends(tenant)) -> None:
        TOUCHED.append(given)

    app = FastAPI()

    @app.get("/")
    def route(given: str = Depends(tenant)) -> str:
        return given

    with capture(taskq) as tasks:
        work.delay()
        tasks.run()

    assert TOUCHED == ["7"]
    assert TestClient(app).get("/", headers={"x-tenant": "8"}).json() == "8"


# --- refused definitions ----------------------------------------------------------------------------------------------


def _takes(annotation: Any, default: Any = None) -> Callable[..., None]:
    """Return a function with one parameter like this."""
    if default is None:

        def function(x: annotation) -> None: ...

    else:

        def function(x: annotation = default) -> None: ...

    return function


NO_REQUEST = "parameter 'x' is the {} of a request, and a task has none; use a TaskContext"
TAKEN = r"parameter 'x' is taken from a request by {}\(...\), and a task has none"
REFUSED = [
    (_takes(Request), NO_REQUEST.format("Request")),
    (_takes(Request | None), NO_REQUEST.format("Request")),
    (_takes(Annotated[Response, "note"]), NO_REQUEST.format("Response")),
    (_takes(WebSocket), NO_REQUEST.format("WebSocket")),
    (_takes(str, Header()), TAKEN.format("Header")),
    (_takes(Annotated[str, Query()]), TAKEN.format("Query")),
    (_takes(Annotated[str, Cookie()]), TAKEN.format("Cookie")),
    (_takes(str, Security(plain)), r"uses Security\(...\), which needs a request"),
    (_takes(list[int], Depends()), r"Depends\(\) alone needs a class as its annotation, got list\[int\]"),
    (_takes(int, Depends()), "the signature cannot be read: no signature found for builtin type"),
    (_takes(Annotated[str, Depends(plain)], Depends(plain)), "has Depends both in Annotated and as its default"),
    (_takes(str, Depends(7)), "Depends takes a function or a class, got 7"),  # type: ignore[arg-type]
    (_takes(str, Depends(_takes(str))), "has no default, and a task has no request that could supply it"),
]


@rows("where", ["task", "dependency", "deep"])
@rows(("function", "message"), REFUSED)
def test_a_dependency_that_cannot_work_in_a_task_is_refused_at_definition(
    taskq: TaskQ, depends: TaskDependencies, where: str, function: Any, message: str
) -> None:
    if where == "dependency":
        function = _takes(str, Depends(function))
    elif where == "deep":
        function = _takes(str, Depends(_takes(str, Depends(function))))

    with pytest.raises(TaskDefinitionError, match=message) as refusal:
        taskq.task(name="work")(function)

    assert str(refusal.value).startswith("task 'work'")
    assert not taskq.tasks


def test_circular_dependencies_are_refused(taskq: TaskQ, depends: TaskDependencies) -> None:
    def first(x: str = "") -> str:
        return x

    def second(x: str = Depends(first)) -> str:
        return x

    first.__defaults__ = (Depends(second),)

    with pytest.raises(TaskDefinitionError, match="the dependencies form a cycle") as refusal:
        taskq.task(name="work")(_takes(str, Depends(first)))

    assert str(refusal.value).count("first") == 2


def test_a_dependency_that_many_others_need_is_checked_once(taskq: TaskQ, depends: TaskDependencies) -> None:
    def needs_twice(inner: Callable[..., Any]) -> Callable[..., Any]:
        def function(x: str = Depends(inner), y: str = Depends(inner)) -> str:
            return x + y

        return function

    function = plain
    for _ in range(60):  # 2 ** 60 paths lead to `plain`
        function = needs_twice(function)
    task = taskq.task(name="work")(_takes(str, Depends(function)))
    depends.dependency_overrides[plain] = lambda: ""

    assert task() is None  # an override is checked by each run


def test_a_shared_dependency_with_string_annotations_is_checked_once(taskq: TaskQ) -> None:
    def work(x: "Annotated[str, Depends(plain)]") -> None: ...

    with pytest.raises(TaskDefinitionError, match="enable_depends"):
        taskq.task(name="work")(work)


def test_depends_without_enable_depends_is_refused(taskq: TaskQ) -> None:
    """This includes `Annotated`. The message names the missing call, even where dependencies are impossible."""
    for function in (_takes(str, Depends(plain)), _takes(Annotated[str, Depends(plain)])):
        with pytest.raises(TaskDefinitionError, match=r"parameter 'x' is marked Depends\(...\); call taskq_fastapi"):
            taskq.task(name="work")(function)

    with pytest.raises(TaskDefinitionError, match="only a task is given dependencies"):

        @taskq.handler("work")
        def handle(message: Any, x: str = Depends(plain)) -> None: ...

    with pytest.raises(TaskDefinitionError, match="only a task is given dependencies"):

        @taskq.aggregator()
        def collect_groups(group: str, tasks: list[Any], x: str = Depends(plain)) -> Any: ...


def test_only_a_queue_application_is_enabled_and_only_once(taskq: TaskQ) -> None:
    assert enable_depends(taskq) is enable_depends(taskq)

    with pytest.raises(ConfigurationError, match="takes a TaskQ, got FastAPI"):
        enable_depends(FastAPI())  # type: ignore[arg-type]
    other = TaskQ()
    other.injector = object()  # type: ignore[assignment]
    with pytest.raises(ConfigurationError, match="already come from object"):
        enable_depends(other)


def test_a_dependency_before_variable_positional_arguments_is_refused(taskq: TaskQ, depends: TaskDependencies) -> None:
    """Positional arguments of a call would fill its parameter."""

    def give() -> dict[str, int]:
        return {}

    def wrong(given: Annotated[dict[str, int], Depends(give)], *rest: int) -> None: ...
    def right(*rest: int, given: Annotated[dict[str, int], Depends(give)]) -> None: ...

    with pytest.raises(TaskDefinitionError, match=r"parameter 'given' is injected by Depends; move it after \*args"):
        taskq.task(name="wrong")(wrong)
    assert taskq.task(name="right")(right).codec.parameters == ("rest",)
