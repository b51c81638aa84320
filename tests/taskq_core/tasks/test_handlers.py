"""Handlers: which one runs a type, what is refused at the decoration, and what a raw message gives."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from taskq_core import ConfigurationError, PayloadError, RawTask, TaskContext, TaskDefinitionError, TaskQ
from tests.rows import rows


@pytest.fixture
def taskq() -> TaskQ:
    return TaskQ()


def raw(payload: bytes = b"{}", **changes: Any) -> RawTask:
    fields: dict[str, Any] = {
        "id": "x",
        "type": "email:welcome",
        "queue": "default",
        "payload": payload,
        "headers": {"tenant": "blue"},
        "retried": 0,
        "max_retry": 25,
    }
    return RawTask(**{**fields, **changes})


class TestWhichOneRuns:
    @pytest.fixture
    def names(self, taskq: TaskQ) -> Callable[[str], str]:
        @taskq.task(name="email:task")
        def task() -> None: ...

        for pattern in ("email:", "email:welcome", "email:welcome:vip", "e", "émail"):
            taskq.handler(pattern)(functools.partial(_handle))
        return lambda name: taskq.find_handler(name).name

    @rows(
        ("name", "expected"),
        [
            ("email:task", "email:task"),
            ("email:task2", "email:"),
            ("email:welcome", "email:welcome"),
            ("email:welcome:vip", "email:welcome:vip"),
            ("email:welcome:vips", "email:welcome:vip"),
            ("email:welcome2", "email:welcome"),
            ("email:", "email:"),
            ("email", "e"),
            ("e", "e"),
            ("émail:x", "émail"),
            ("EMAIL:welcome", ""),
            ("report", ""),
        ],
    )
    def test_a_task_wins_over_an_exact_pattern_and_that_over_the_longest_prefix(
        self, names: Callable[[str], str], name: str, expected: str
    ) -> None:
        """Patterns have no wildcards, and matching is case-sensitive."""
        assert names(name) == expected

    def test_the_order_of_registration_does_not_matter(self, taskq: TaskQ) -> None:
        taskq.handler("a")(_handle)
        taskq.handler("abc")(_handle)
        taskq.handler("ab")(_handle)

        assert [taskq.find_handler(name).name for name in ("abcd", "abx", "ax", "b")] == ["abc", "ab", "a", ""]

    def test_a_fallback_handles_unknown_types(self, taskq: TaskQ) -> None:
        default = taskq.find_handler("unknown")

        taskq.not_found(_handle)

        assert taskq.find_handler("unknown") is not default
        assert taskq.find_handler("unknown").function is _handle

    def test_the_decorator_returns_the_function_unchanged(self, taskq: TaskQ) -> None:
        assert taskq.handler("a")(_handle) is _handle
        assert taskq.not_found(_handle) is _handle
        assert taskq.on_error(_tell) is _tell


class TestRefusals:
    @rows("pattern", ["", "  ", "\n", "a\x00b", "x" * 257])
    def test_an_invalid_pattern_is_refused(self, taskq: TaskQ, pattern: str) -> None:
        with pytest.raises(TaskDefinitionError, match="pattern of a handler: task type must"):
            taskq.handler(pattern)

    def test_a_missing_pattern_is_refused(self, taskq: TaskQ) -> None:
        """The decorator is used without a call."""
        with pytest.raises(TaskDefinitionError, match=r'@taskq\.handler\("email:"\), got <function'):
            taskq.handler(_handle)  # type: ignore[arg-type]  # the point of the test

    def test_a_duplicate_pattern_is_refused(self, taskq: TaskQ) -> None:
        taskq.handler("email:")(_handle)

        with pytest.raises(
            TaskDefinitionError, match=r"the pattern 'email:' is already used by .*_handle; .*_other needs"
        ):
            taskq.handler("email:")(_other)

        assert taskq.find_handler("email:x").function is _handle

    def test_a_reloaded_module_can_register_again(self, taskq: TaskQ) -> None:
        taskq.handler("email:")(_handle)
        taskq.handler("email:")(_handle)
        taskq.not_found(_handle)
        taskq.not_found(_handle)

        assert taskq.find_handler("email:x").name == "email:"

    def test_the_name_of_a_task_is_refused_as_a_pattern(self, taskq: TaskQ) -> None:
        """This holds in either order, because a handler with exactly that name would never run."""

        @taskq.task(name="a")
        def task() -> None: ...

        taskq.handler("b")(_handle)

        with pytest.raises(TaskDefinitionError, match=r"the name 'a' is already used by .*task; .*_handle needs"):
            taskq.handler("a")(_handle)
        with pytest.raises(
            TaskDefinitionError, match=r"the name 'b' is already used by .*_handle; .*late needs another name="
        ):

            @taskq.task(name="b")
            def late() -> None: ...

        assert "b" not in taskq.tasks

    def test_a_second_fallback_is_refused(self, taskq: TaskQ) -> None:
        taskq.not_found(_handle)

        with pytest.raises(TaskDefinitionError, match="the handler for unknown types is already used by"):
            taskq.not_found(_other)

    def test_functions_without_a_message_parameter_are_refused(self, taskq: TaskQ) -> None:
        def none() -> None: ...
        def two(message: RawTask, more: int) -> None: ...
        def named(*, message: RawTask) -> None: ...
        def only(message: RawTask, /) -> None: ...
        def behind(message: RawTask, context: TaskContext) -> None: ...
        def context(context: TaskContext) -> None: ...
        def generator(message: RawTask) -> Any:
            yield

        for function in (none, two, named, only, behind, context, generator, RawTask, "text"):
            with pytest.raises(TaskDefinitionError, match="the handler of 'email:'"):
                taskq.handler("email:")(function)  # type: ignore[type-var]  # the point of the test

    def test_a_task_is_refused_as_a_handler(self, taskq: TaskQ) -> None:
        @taskq.task(name="t")
        def task(message: RawTask) -> None: ...

        with pytest.raises(TaskDefinitionError, match="must be a function other than a task, got <task 't'>"):
            taskq.handler("email:")(task)

    def test_options_stored_in_the_message_are_refused(self, taskq: TaskQ) -> None:
        """Only those count that are asked where the task runs."""
        with pytest.raises(ConfigurationError, match="unknown option of a handler 'queue'; known are is_failure, max_"):
            taskq.handler("email:", queue="a")(_handle)  # type: ignore[call-arg]  # the point of the test
        with pytest.raises(ConfigurationError, match="retry_delay must be seconds"):
            taskq.handler("email:", retry_delay="soon")(_handle)  # type: ignore[arg-type]  # the point of the test

        assert taskq.find_handler("email:x").name == ""

    def test_an_error_handler_with_other_parameters_is_refused(self, taskq: TaskQ) -> None:
        def one(error: BaseException) -> None: ...
        def three(error: BaseException, context: TaskContext, more: int) -> None: ...

        for function in (one, three):
            with pytest.raises(TaskDefinitionError, match="must accept the error and the task's context, but"):
                taskq.on_error(function)
        assert taskq.error_handlers == []


class TestOptions:
    def test_options_of_a_handler_override_the_defaults(self) -> None:
        """Changed settings apply to the options that the handler does not set."""
        taskq = TaskQ(defaults={"retry_delay": 5, "no_retry_on": ValueError})
        taskq.handler("a", retry_delay=[1, 2])(_handle)
        handler = taskq.find_handler("a")

        assert handler.options.retry_delay == [1, 2]
        assert handler.options.no_retry_on == (ValueError,)
        assert taskq.find_handler("unknown").options.retry_delay == 5
        taskq.configure(TaskQ(defaults={"no_retry_on": KeyError}).settings)
        assert handler.options.no_retry_on == (KeyError,)


@dataclass
class Mail:
    to: str
    copies: int = 0


class TestRawTask:
    def test_a_raw_task_decodes_its_payload_as_a_type(self) -> None:
        assert raw(b'{"to": "a@b.c"}').decode(Mail) == Mail(to="a@b.c")
        assert raw(b'{"to": "a@b.c"}').decode(dict) == {"to": "a@b.c"}
        assert raw(b"[1, 2]").decode(list[int]) == [1, 2]
        assert raw(b"").decode(dict) == {}

    @rows(
        ("payload", "problem"),
        [(b"{}", "missing"), (b'{"to": 1}', "expected str"), (b"\xff", ""), (b'{"to":"secret","copies":"x"}', "int")],
    )
    def test_an_invalid_payload_is_refused(self, payload: bytes, problem: str) -> None:
        """The error names types and never the value."""
        with pytest.raises(PayloadError, match=f"payload of task 'email:welcome': .*{problem}") as refused:
            raw(payload).decode(Mail)

        assert "secret" not in str(refused.value)
        assert refused.value.__context__ is None

    def test_the_repr_of_a_raw_task_hides_the_payload(self) -> None:
        assert "secret" not in repr(raw(b"secret", headers={"a": "secret"}))


def _handle(message: RawTask) -> None: ...


def _other(message: RawTask) -> None: ...


def _tell(error: BaseException, context: TaskContext) -> None: ...
