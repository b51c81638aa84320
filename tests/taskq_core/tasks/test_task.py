"""The decorator and tasks: names, what is refused, calling, binding, remote tasks."""

import asyncio
import functools
import importlib
import os
import sys
import types
import warnings
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import taskq_core.warnings
from taskq_core import (
    ConfigurationError,
    CoroutineTask,
    RemoteTask,
    ResultTimeoutError,
    Task,
    TaskArgumentsError,
    TaskContext,
    TaskDefinitionError,
    TaskQ,
    current_task,
)
from taskq_core.testing import capture
from taskq_core.wire import decode_message
from tests.rows import rows

ROOT = Path(__file__).parents[3]


@pytest.fixture
def taskq(fake_redis: Any) -> TaskQ:
    return TaskQ(fake_redis)


def payloads(fake_redis: Any, queue: str = "default") -> list[bytes]:
    """Payloads of the pending tasks, oldest first."""
    ids = fake_redis.lrange(f"asynq:{{{queue}}}:pending", 0, -1)[::-1]
    return [decode_message(fake_redis.hget(f"asynq:{{{queue}}}:t:{i.decode()}", "msg")).payload for i in ids]


class TestNames:
    def test_the_default_name_is_module_and_qualname(self, taskq: TaskQ) -> None:
        @taskq.task
        def send() -> None: ...

        assert send.name == f"{__name__}.TestNames.test_the_default_name_is_module_and_qualname.<locals>.send"
        assert send.__name__ == "send"
        assert taskq.tasks[send.name] is send

    def test_a_given_name_is_used(self, taskq: TaskQ) -> None:
        @taskq.task(name="email:deliver")
        def send() -> None: ...

        assert send.name == "email:deliver"

    @rows("name", ["", " ", "a\nb", "x" * 257])
    def test_an_invalid_name_is_refused(self, taskq: TaskQ, name: str) -> None:
        with pytest.raises(ConfigurationError, match="task type must"):
            taskq.task(name=name)(lambda: None)

    def test_a_duplicate_name_is_refused(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        def one() -> None: ...

        with pytest.raises(
            TaskDefinitionError, match=r"the name 't' is already used by .*one; .*two needs another name="
        ):

            @taskq.task(name="t")
            def two() -> None: ...

    def test_a_duplicate_name_in_a_module_is_refused_with_both_locations(
        self, taskq: TaskQ, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The second function would silently take the place of the first. A module that is loaded again may do so."""
        monkeypatch.syspath_prepend(str(tmp_path))
        module = tmp_path / "defined_twice.py"
        head = "import app_of_test\ntask = app_of_test.taskq.task\n\n@task\ndef send(): ...\n"
        monkeypatch.setitem(sys.modules, "app_of_test", types.SimpleNamespace(taskq=taskq))  # type: ignore[arg-type]  # enough
        module.write_text(head)
        loaded = importlib.import_module("defined_twice")
        first = loaded.send

        importlib.reload(loaded)
        assert taskq.tasks["defined_twice.send"] is loaded.send is not first
        module.write_text(f"{head}\n@task\ndef send(): ...\n")
        os.utime(module, (1, 1))
        with pytest.raises(TaskDefinitionError) as caught:
            importlib.reload(loaded)

        assert str(caught.value) == (
            "the name 'defined_twice.send' is already used by defined_twice.send; "
            "defined_twice.send needs another name=; "
            f"see {module}:4 and {module}:7"
        )
        del sys.modules["defined_twice"]

    def test_the_same_function_can_be_registered_again(self, taskq: TaskQ) -> None:
        """A module that is imported again, or a notebook cell that is run again, replaces its tasks."""

        def define() -> Task[..., None]:
            @taskq.task(name="t")
            def one() -> None: ...

            return one

        define()
        again = define()

        assert taskq.tasks["t"] is again


class TestFunctions:
    def test_a_task_is_callable_like_its_function(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        def add(a: int, b: int = 2) -> int:
            """Add."""
            return a + b

        assert (add(1), add(1, b=5)) == (3, 6)
        assert add.__doc__ == "Add."
        assert add.__wrapped__ is add.function  # type: ignore[attr-defined]  # set by functools.update_wrapper
        assert type(add) is Task
        assert not add.is_coroutine
        assert repr(add) == "<task 't'>"

    async def test_a_coroutine_function_is_accepted(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        async def add(a: int, b: int = 2) -> int:
            return a + b

        assert await add(1, b=4) == 5
        assert type(add) is CoroutineTask
        assert add.is_coroutine

    def test_positional_only_parameters_are_refused(self, taskq: TaskQ) -> None:
        with pytest.raises(TaskDefinitionError, match=r"parameter 'a': a positional-only .*; remove the '/'"):
            taskq.task(name="t")(lambda a, /: None)
        assert "t" not in taskq.tasks

    def test_an_object_that_is_no_function_is_refused(self, taskq: TaskQ) -> None:
        class Klass:
            pass

        for thing in (Klass, 5, None, "f", classmethod(lambda cls: None)):
            with pytest.raises(TaskDefinitionError, match="a task must be a function, got"):
                taskq.task(name="t")(thing)  # type: ignore[call-overload]  # the point of the test

    def test_a_task_cannot_be_registered_again_as_a_task(self, taskq: TaskQ) -> None:
        task = taskq.task(name="t")(lambda: None)

        with pytest.raises(TaskDefinitionError, match=r"<task 't'> is a task already; .using\(...\) returns a copy"):
            taskq.task(task)
        with pytest.raises(TaskDefinitionError, match="<remote task 'r'> is a task already"):
            taskq.task(taskq.remote("r"))  # type: ignore[call-overload]  # the point of the test

    def test_generators_are_refused(self, taskq: TaskQ) -> None:
        def numbers() -> Iterator[int]:
            yield 1

        async def later() -> Any:
            yield 1

        for function in (numbers, later):
            with pytest.raises(TaskDefinitionError, match="is a generator, which would never run; return a list"):
                taskq.task(function)

    def test_a_method_is_refused(self, taskq: TaskQ) -> None:
        with pytest.raises(
            TaskDefinitionError, match=r"Mailer.send' is a method, and a payload cannot contain its 'self'"
        ):

            class Mailer:
                @taskq.task(name="t")
                def send(self, to: str) -> None: ...

    def test_a_static_method_and_a_bound_method_are_functions(self, taskq: TaskQ) -> None:
        class Mailer:
            @taskq.task(name="static")
            @staticmethod
            def send(to: str) -> str:
                return to

            def bound(self, to: str) -> str:
                return to * 2

        assert Mailer.send("a") == "a"
        assert taskq.task(name="bound")(Mailer().bound)("a") == "aa"

    def test_a_lambda_needs_a_name(self, taskq: TaskQ) -> None:
        with pytest.raises(TaskDefinitionError, match=r"<lambda> at .* has no name; give the task one with name="):
            taskq.task(lambda: None)

        assert taskq.task(name="t")(lambda a=1: a)(3) == 3

    def test_a_partial_needs_a_name(self, taskq: TaskQ) -> None:
        def add(a: int, b: int) -> int:
            return a + b

        partial = functools.partial(add, b=5)
        with pytest.raises(TaskDefinitionError, match="has no name; give the task one with name="):
            taskq.task(partial)

        task = taskq.task(name="t")(partial)
        assert task(1) == 6
        assert task.codec.decode(task.encode((1,), {})) == {"a": 1}

    def test_a_partial_of_a_coroutine_function_is_a_coroutine_task(self, taskq: TaskQ) -> None:
        async def add(a: int, b: int) -> int:
            return a + b

        assert taskq.task(name="t")(functools.partial(add, b=5)).is_coroutine

    def test_a_callable_object_needs_a_name(self, taskq: TaskQ) -> None:
        class Adder:
            def __call__(self, a: int) -> int:
                return a + 1

        with pytest.raises(TaskDefinitionError, match="has no name"):
            taskq.task(Adder())

        assert taskq.task(name="t")(Adder())(1) == 2

    def test_a_wrapped_function_keeps_name_and_signature(self, taskq: TaskQ) -> None:
        """Decorators below `@task` run with it; `functools.wraps` lets the signature through."""

        def twice(function: Callable[..., int]) -> Callable[..., int]:
            @functools.wraps(function)
            def wrapper(*args: Any, **kwargs: Any) -> int:
                return 2 * function(*args, **kwargs)

            return wrapper

        @taskq.task
        @twice
        def add(a: int, b: int = 1) -> int:
            return a + b

        assert add(1) == 4
        assert add.name.endswith(".add")
        with pytest.raises(TaskArgumentsError, match="parameter 'a'"):
            add.delay("x")

    def test_a_signature_that_cannot_be_read_is_refused(self, taskq: TaskQ) -> None:
        with pytest.raises(TaskDefinitionError, match="the signature cannot be read"):
            taskq.task(name="t")(min)

    def test_annotations_that_cannot_be_resolved_are_refused(self, taskq: TaskQ) -> None:
        def send(to: "Nowhere") -> None: ...  # type: ignore[name-defined]  # noqa: F821 - the point of the test

        with pytest.raises(TaskDefinitionError, match="parameter 'to': the annotation 'Nowhere' cannot be resolved"):
            taskq.task(send)


class TestContext:
    def test_a_direct_call_receives_a_context(self, taskq: TaskQ, fake_redis: Any) -> None:
        """The context is not part of the payload. In a direct call, it says that the run is local."""

        @taskq.task(name="t", queue="q", max_retry=3)
        def job(context: TaskContext, a: int) -> tuple[str, str, str, bool, int, int]:
            return context.id, context.name, context.queue, context.local, context.attempt, context.max_retry

        job.delay(5)

        assert job(5) == ("local", "t", "q", True, 1, 3)
        assert payloads(fake_redis, "q") == [b'{"a":5}']
        assert job.takes_context

    async def test_a_direct_call_of_a_coroutine_receives_a_context(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        async def job(context: "TaskContext") -> bool:
            return context.local

        assert await job() is True

    def test_a_caller_cannot_pass_the_context(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        def job(context: TaskContext, a: int = 1) -> None: ...

        with pytest.raises(TaskArgumentsError, match="got 'context', which the worker injects"):
            job.delay(context=None)  # type: ignore[call-arg]  # the point of the test

    def test_the_context_must_be_the_first_parameter(self, taskq: TaskQ) -> None:
        def second(a: int, context: TaskContext) -> None: ...
        def twice(context: TaskContext, other: TaskContext) -> None: ...
        def keyword(*, context: TaskContext) -> None: ...

        for function, name in ((second, "context"), (twice, "other"), (keyword, "context")):
            with pytest.raises(
                TaskDefinitionError, match=f"only the first parameter may have .* positional; got '{name}'"
            ):
                taskq.task(name="t")(function)

    def test_writing_a_result_in_a_direct_call_does_nothing(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        def job(context: TaskContext) -> None:
            context.write_result(b"x")

        assert job() is None  # type: ignore[func-returns-value]  # the call must not raise

    def test_outside_of_a_run_there_is_no_current_task(self) -> None:
        with pytest.raises(LookupError, match=r"no task runs here; current_task\(\) works inside a task only"):
            current_task()


class TestCalls:
    def test_delay_binds_arguments_like_python(self, taskq: TaskQ, fake_redis: Any) -> None:
        @taskq.task(name="t")
        def add(a: int, b: int = 2, *, c: str = "x") -> None: ...

        add.delay(1)
        add.delay(1, 3, c="y")
        add.s(b=4, a=0).delay()

        assert payloads(fake_redis) == [b'{"a":1}', b'{"a":1,"b":3,"c":"y"}', b'{"a":0,"b":4}']

    @rows(
        ("args", "kwargs", "message"),
        [
            ((), {}, "task 't', parameter 'a': missing 1 required positional argument: 'a'"),
            ((1, 2, 3), {}, "task 't': takes from 1 to 2 positional arguments but 3 were given"),
            ((1,), {"a": 2}, "task 't', parameter 'a': got multiple values for argument 'a'"),
            ((1,), {"bb": 2}, "task 't': got an unexpected keyword argument 'bb'; did you mean 'b'?"),
            (("canary",), {}, "task 't', parameter 'a': expected int, got str (position 1)"),
        ],
    )
    def test_invalid_arguments_are_refused_before_anything_is_enqueued(
        self, taskq: TaskQ, fake_redis: Any, args: Any, kwargs: Any, message: str
    ) -> None:
        @taskq.task(name="t")
        def add(a: int, b: int = 2) -> None: ...

        with pytest.raises(TaskArgumentsError) as caught:
            add.delay(*args, **kwargs)

        assert str(caught.value) == message
        assert fake_redis.keys() == []

    async def test_adelay_enqueues_a_task(self, taskq: TaskQ, fake_redis: Any) -> None:
        @taskq.task(name="t")
        async def add(a: int) -> None: ...

        handle = await add.adelay(1)
        await add.s(2).adelay()
        await taskq.aclose()

        assert (handle.name, handle.queue) == ("t", "default")
        assert payloads(fake_redis) == [b'{"a":1}', b'{"a":2}']

    def test_the_repr_of_a_signature_hides_its_arguments(self, taskq: TaskQ) -> None:
        call = taskq.remote("t").s(password="canary")

        assert repr(call) == "<signature of 't'>"
        assert repr(call.using(queue="q")) == "<signature of 't'>"
        assert call.using(queue="q").task.options.queue == "q"


class TestBlockingWarning:
    @pytest.fixture(autouse=True)
    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(taskq_core.warnings, "_warned_of_blocking", False)

    async def test_delay_on_a_running_loop_warns_once_and_names_adelay(self, taskq: TaskQ) -> None:
        """The warning points at the caller's line."""
        task = taskq.task(name="t")(lambda: None)

        with pytest.warns(
            RuntimeWarning, match=r"enqueueing a task blocks the running event loop .* await \.adelay\(\)"
        ) as said:
            task.delay()
        assert said[0].filename == __file__

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            task.delay()
            task.s().delay()
            taskq.remote("r").delay()

    async def test_result_warns_too_and_names_aresult(self, taskq: TaskQ) -> None:
        task = taskq.task(name="t", retention=60)(lambda: None)

        with capture(taskq):
            handle = await task.adelay()
            with (
                pytest.warns(RuntimeWarning, match=r"\.result\(\) blocks .* await \.aresult\(\)") as said,
                pytest.raises(ResultTimeoutError),
            ):
                handle.result(timeout=0)
        assert said[0].filename == __file__

    @pytest.mark.parametrize("kind", ["signature", "remote"])
    async def test_signatures_and_remote_tasks_warn_on_a_running_loop(self, taskq: TaskQ, kind: str) -> None:
        remote = taskq.remote("r")

        with pytest.warns(RuntimeWarning, match=r"enqueueing a task blocks") as said:
            remote.delay() if kind == "remote" else remote.s().delay()

        assert said[0].filename == __file__

    async def test_delay_in_a_thread_does_not_warn(self, taskq: TaskQ) -> None:
        task = taskq.task(name="t")(lambda: None)

        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await asyncio.to_thread(task.delay)


class TestRemote:
    def test_keywords_of_a_remote_task_become_the_payload(self, taskq: TaskQ, fake_redis: Any) -> None:
        report = taskq.remote("report:build", queue="go")

        handle = report.delay(To="a@b.c", Subject=None)

        assert isinstance(report, RemoteTask)
        assert (handle.name, handle.queue) == ("report:build", "go")
        assert payloads(fake_redis, "go") == [b'{"To":"a@b.c","Subject":null}']

    def test_bytes_for_a_remote_task_are_the_unchanged_payload(self, taskq: TaskQ, fake_redis: Any) -> None:
        taskq.remote("t").delay(b"\x00\xff not JSON")

        assert payloads(fake_redis) == [b"\x00\xff not JSON"]

    async def test_a_coroutine_enqueues_a_remote_task(self, taskq: TaskQ, fake_redis: Any) -> None:
        await taskq.remote("t").adelay(a=1)
        await taskq.aclose()

        assert payloads(fake_redis) == [b'{"a":1}']

    @rows(
        ("args", "kwargs", "message"),
        [
            (("text",), {}, "a remote task takes keyword arguments, or the payload bytes as its only argument"),
            ((b"a", b"b"), {}, "a remote task takes keyword arguments, or the payload bytes as its only argument"),
            ((b"a",), {"b": 1}, "a remote task takes keyword arguments, or the payload bytes as its only argument"),
            ((), {"a": object()}, "the arguments cannot be written as JSON"),
            ((), {"a": "\ud800"}, "the arguments cannot be written as JSON"),
        ],
    )
    def test_an_invalid_payload_is_refused(
        self, taskq: TaskQ, fake_redis: Any, args: Any, kwargs: Any, message: str
    ) -> None:
        with pytest.raises(TaskArgumentsError) as caught:
            taskq.remote("t").delay(*args, **kwargs)

        assert str(caught.value) == f"task 't': {message}"
        assert fake_redis.keys() == []

    def test_a_remote_task_is_not_registered(self, taskq: TaskQ) -> None:
        taskq.remote("t")

        assert dict(taskq.tasks) == {}
        with pytest.raises(TypeError):
            taskq.tasks["t"] = None  # type: ignore[index]  # the point of the test

    @pytest.mark.parametrize("name", ["", "a\r\nb", "x" * 300])
    def test_hostile_names_are_refused(self, taskq: TaskQ, name: str) -> None:
        with pytest.raises(ConfigurationError, match="task type must"):
            taskq.remote(name)


def test_the_return_annotation_determines_the_result_type(taskq: TaskQ) -> None:
    """What cannot be resolved, or is not annotated, is read as plain JSON."""

    @taskq.task(name="a")
    def one() -> "dict[str, int]":
        return {}

    @taskq.task(name="b")
    def two():  # type: ignore[no-untyped-def]
        return 1

    @taskq.task(name="c")
    def three() -> "Nowhere":  # type: ignore[name-defined]  # noqa: F821 - the point of the test
        return 1

    @taskq.task(name="d")
    async def four() -> list[int]:
        return []

    kinds = [task.result_type for task in (one, two, three, four)]
    assert kinds == [dict[str, int], Any, Any, list[int]]


async def test_a_direct_call_of_a_coroutine_returns_it_unawaited(taskq: TaskQ) -> None:
    ran: list[int] = []

    @taskq.task(name="t")
    async def job() -> None:
        ran.append(1)

    made: Awaitable[None] = job()

    assert ran == []
    await made
    assert ran == [1]
