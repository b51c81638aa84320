"""Options of tasks: checks, messages, times, names, and how defaults come in."""

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

from taskq_core import (
    Concurrency,
    ConfigurationError,
    RateLimit,
    TaskOptions,
    TaskQ,
    TaskSequence,
    Unique,
    Workflow,
    exponential,
)
from taskq_core.cli.enqueue import enqueue
from taskq_core.execution.retry import asynq_default
from taskq_core.tasks.options import CALL_OPTIONS, OPTION_NAMES, TaskOptionsDict, task_options
from taskq_core.wire import Expiry
from taskq_core.workflow import step
from tests.rows import rows

WORKER_OPTIONS: dict[str, Any] = {
    "retry_delay": exponential(),
    "retry_on": OSError,
    "no_retry_on": ValueError,
    "is_failure": bool,
    "trace": "link",
    "on_missing": "discard",
    "max_result_bytes": 10,
    "signals": {"review": bool},
    "step_errors": ValueError,
    "max_emitted": 10,
}
BERLIN = timezone(timedelta(hours=1))


class TestDefaults:
    def test_defaults_apply_without_options(self) -> None:
        """The defaults are those of Asynq: queue `default`, 25 retries, 30 minutes, and no retention."""
        options = TaskOptions()

        assert (options.queue, options.max_retry, options.timeout_s, options.deadline_s) == ("default", 25, 1800, 0)
        assert (options.retention_s, options.unique_s, options.task_id) == (0, 0, None)
        assert options.policy is asynq_default

    def test_a_deadline_alone_disables_the_default_timeout(self) -> None:
        options = TaskOptions(deadline=datetime(2030, 1, 1, tzinfo=UTC))

        assert (options.timeout_s, options.deadline_s) == (0, 1_893_456_000)

    def test_limits_are_rounded_up_to_whole_seconds(self) -> None:
        """A short limit must not become none, which the wire writes as 0."""
        options = TaskOptions(timeout=0.2, retention=timedelta(milliseconds=1), unique_for=1.9)

        assert (options.timeout_s, options.retention_s, options.unique_s) == (1, 1, 1)

    def test_durations_become_seconds(self) -> None:
        options = TaskOptions(timeout=timedelta(minutes=2), run_after=timedelta(hours=1), retention=5)

        assert (options.timeout, options.run_after, options.retention) == (120.0, 3600.0, 5.0)


class TestTimes:
    @rows("value", [-1, -0.5, -(10**400), timedelta(days=-1), timedelta.min, 0])
    def test_a_negative_delay_means_now(self, value: Any) -> None:
        assert TaskOptions(run_after=value).run_after == 0.0

    @rows(
        ("value", "message"),
        [
            (float("nan"), "run_after must be at most 100 years, got nan"),
            (float("inf"), "run_after must be at most 100 years, got inf"),
            (float("-inf"), "run_after must be at most 100 years, got -inf"),
            (10**400, "run_after must be at most 100 years, got 1"),
            (timedelta.max, "run_after must be at most 100 years, got "),
            ("60", "run_after must be a timedelta or a number of seconds, got '60'"),
            (True, "run_after must be a timedelta or a number of seconds, got True"),
            (datetime(2030, 1, 1), "run_after must be an aware datetime (with a time zone), got the naive "),  # noqa: DTZ001 - the point
            (datetime(1969, 1, 1, tzinfo=UTC), "run_after must be between 1970 and 9999, got "),
            (datetime.min.replace(tzinfo=BERLIN), "run_after must be between 1970 and 9999, got "),
        ],
    )
    def test_other_delays_are_refused(self, value: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TaskOptions(run_after=value)

        assert str(caught.value).startswith(message)

    def test_an_aware_time_is_kept(self) -> None:
        moment = datetime(2030, 1, 1, tzinfo=BERLIN)

        assert TaskOptions(run_after=moment).run_after is moment

    @rows(
        ("value", "message"),
        [
            (60, "deadline must be an aware datetime, got 60"),
            (datetime(2030, 1, 1), "deadline must be an aware datetime (with a time zone), got the naive "),  # noqa: DTZ001 - the point
            (datetime.max.replace(tzinfo=timezone(timedelta(hours=-12))), "deadline must be between 1970 and 9999"),
        ],
    )
    def test_invalid_deadlines_are_refused(self, value: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TaskOptions(deadline=value)

        assert str(caught.value).startswith(message)


class TestChecks:
    @rows(
        ("options", "message"),
        [
            ({"queue": ""}, "queue name must not be blank, got ''"),
            ({"queue": "  "}, "queue name must not be blank, got '  '"),
            ({"queue": None}, "queue name must be a string, got NoneType"),
            ({"queue": "a\r\nDEL x"}, "queue name must not contain a control character"),
            ({"queue": "}a"}, "queue name must not start with '}'"),
            ({"queue": "x" * 10_000}, "queue name must be at most 256 bytes, got 10000"),
            ({"queue": "\ud800"}, "queue name must be valid UTF-8"),
            ({"max_retry": -1}, "max_retry must be between 0 and 2147483647, got -1"),
            ({"max_result_bytes": 0}, "max_result_bytes must be between 1 and 536870912, got 0"),
            ({"max_retry": 2**31}, "max_retry must be between 0 and 2147483647, got 2147483648"),
            ({"max_retry": "3"}, "max_retry must be a whole number, got '3'"),
            ({"max_retry": True}, "max_retry must be a whole number, got True"),
            ({"retry_delay": "soon"}, "retry_delay must be seconds, a timedelta, a list of them, "),
            ({"retry_delay": []}, "retry_delay must be seconds, a timedelta, a list of them, "),
            ({"retry_delay": [1, -1]}, "retry_delay[1] must be 0 or more seconds, got -1"),
            ({"retry_delay": -5}, "retry_delay must be 0 or more seconds, got -5"),
            ({"retry_on": "ValueError"}, "retry_on must be an exception class or a tuple of them, got 'ValueError'"),
            (
                {"retry_on": (ValueError, int)},
                "retry_on must be an exception class or a tuple of them, got <class 'int'>",
            ),
            ({"no_retry_on": ValueError("x")}, "no_retry_on must be an exception class or a tuple of them, got "),
            ({"timeout": 0}, "timeout must be more than 0 seconds, got 0"),
            ({"timeout": -1}, "timeout must be more than 0 seconds, got -1"),
            ({"timeout": float("nan")}, "timeout must be at most 100 years, got nan"),
            ({"retention": -1}, "retention must be 0 or more seconds, got -1"),
            ({"retention": None}, "retention must be a timedelta or a number of seconds, got None"),
            ({"unique_for": 0.5}, "unique_for must be at least one second, got 0.5"),
            ({"unique_for": -1}, "unique_for must be 0 or more seconds, got -1"),
            ({"task_id": ""}, "task id must not be blank"),
            ({"task_id": "a\nb"}, "task id must not contain a control character"),
            ({"task_id": 5}, "task id must be a string, got int"),
            ({"headers": [("a", "b")]}, "headers must map text to text, got list"),
            ({"headers": {"a": 1}}, "headers must map text to text, got int for 'a'"),
            ({"headers": {"": "x"}}, "headers must map text to text, got str for ''"),
            ({"headers": {"taskq-x": "1"}}, "header 'taskq-x' is reserved for taskq; choose another name"),
            ({"headers": {"traceparent": "1"}}, "header 'traceparent' is reserved for taskq"),
            ({"headers": {"a": "\ud800"}}, "header 'a' has a lone surrogate"),
            ({"headers": {"a": "x" * 8000}}, "headers of a task have 8001 bytes, at most 7168 are allowed"),
            ({"quue": "x"}, "unknown task option 'quue'; did you mean 'queue'?"),
            ({"QUEUE": "x"}, "unknown task option 'QUEUE'; did you mean 'queue'?"),
            ({"countdown": 5}, "unknown task option 'countdown'; use run_after"),
            ({"expires_in": 5}, "unknown task option 'expires_in'; use expires"),
            ({"bind": True}, "unknown task option 'bind'; annotate the first parameter of the function with TaskCon"),
            ({"priority": 10}, "priority must be between 0 and 9, got 10"),
            ({"priority": -1}, "priority must be between 0 and 9, got -1; use another queue"),
            ({"priority": None}, "priority must be a whole number, got None"),
            ({"retry_priority": True}, "retry_priority must be a whole number, got True"),
            ({"zzz": 1}, "unknown task option 'zzz'; known are aggregate, concurrency, dead_letter, "),
        ],
    )
    def test_an_error_names_option_value_and_expected_type(self, options: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            task_options(options)

        assert str(caught.value).startswith(message)

    def test_a_header_value_never_shows(self) -> None:
        for headers in ({"a": "canary" * 2000}, {"a": "canary\ud800"}, {"traceparent": "canary"}):
            with pytest.raises(ConfigurationError) as caught:
                TaskOptions(headers=headers)
            assert "canary" not in str(caught.value)

    @rows("name", ["*", "a b", "ünïcode", "a:b", "{a}", "a}", "a*?[x]", "x" * 256])
    def test_unusual_names_are_accepted(self, name: str) -> None:
        assert TaskOptions(queue=name, task_id=name).queue == name

    @rows("judge", [lambda error: True, bool, lambda *errors: True, None])
    def test_a_function_decides_which_errors_are_retried(self, judge: Any) -> None:
        assert TaskOptions(is_failure=judge).is_failure is judge

    def test_an_invalid_error_filter_is_refused(self) -> None:
        """The error is raised when the option is given, not when the first task fails."""

        async def coroutine(error: BaseException) -> bool:
            return True

        judge: Any
        for judge in (ValueError("x"), (ValueError,), True, coroutine):
            with pytest.raises(ConfigurationError, match="is_failure must be a plain function of the error, got"):
                TaskOptions(is_failure=judge)
        for judge in (lambda: True, lambda error, context: True):
            with pytest.raises(ConfigurationError, match="is_failure must take the error alone, got"):
                TaskOptions(is_failure=judge)

    def test_one_exception_class_becomes_a_tuple(self) -> None:
        options = task_options({"retry_on": OSError, "no_retry_on": [ValueError, KeyError]})

        assert (options.retry_on, options.no_retry_on) == ((OSError,), (ValueError, KeyError))


class TestUsing:
    def test_using_returns_a_copy(self, fake_redis: Any) -> None:
        """The task itself keeps its options; later options win over earlier ones."""
        taskq = TaskQ(fake_redis)

        @taskq.task(name="t", queue="a", max_retry=3)
        def task() -> None: ...

        copy = task.using(queue="b").using(retention=5)

        assert (copy.options.queue, copy.options.max_retry, copy.options.retention_s) == ("b", 3, 5)
        assert (task.options.queue, task.options.retention_s) == ("a", 0)
        assert type(copy) is type(task)
        assert copy.function is task.function
        assert taskq.tasks["t"] is task

    def test_using_accepts_every_option_of_the_message(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        moment = datetime(2030, 1, 1, tzinfo=UTC)

        given: dict[str, Any] = {
            "queue": "q",
            "priority": 3,
            "retry_priority": 4,
            "max_retry": 1,
            "timeout": 1,
            "deadline": moment,
            "run_after": 5,
            "dead_letter": "dead",
            "expires": 8,
            "on_expiry": "discard",
            "retention": 6,
            "task_id": "id",
            "unique_for": 7,
            "headers": {"a": "b"},
            "aggregate": "g",
            "rate_limit": "5/s",
            "concurrency": 3,
            "sequence": "user",
            "replicated": 2,
            "fsynced": True,
        }

        options = taskq.remote("t").using(**given).options
        unique = Unique(args=["a"])

        assert given.keys() | {"unique"} | WORKER_OPTIONS.keys() == set(OPTION_NAMES)
        assert taskq.remote("t").using(**{**given, "unique_for": 0, "unique": unique}).options.unique is unique
        assert (options.queue, options.max_retry, options.timeout_s, options.deadline) == ("q", 1, 1, moment)
        assert (options.run_after, options.retention_s, options.task_id, options.unique_s) == (5.0, 6, "id", 7)
        assert (dict(options.headers), options.aggregate) == ({"a": "b"}, "g")
        assert (options.replicated, options.fsynced) == (2, True)
        assert options.limits == (TaskSequence("user"), Concurrency(3), RateLimit("5/s"))
        assert options.bands == (3, 4)
        assert options.dead_letter_address == ("default", "dead")
        assert options.expiry == Expiry(8, True, True)

    @rows("name", list(WORKER_OPTIONS))
    def test_using_refuses_options_that_workers_read_from_code(self, name: str, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        given: dict[str, Any] = {name: WORKER_OPTIONS[name]}
        schedule = {"daily": {"task": "t", "spec": "@daily", **given}}
        task = taskq.task(name="t")(lambda: None)

        for refused in (
            lambda: task.using(**given),
            lambda: task.s().using(**given),
            lambda: step(task.s(), **given),
            lambda: Workflow().step("a", task.s(), **given),
            lambda: taskq.remote("t", **given),
            lambda: taskq.remote("t").using(**given),
            lambda: taskq.schedule("@daily", task, **given),
            lambda: TaskQ(fake_redis, schedule=schedule),
            lambda: TaskQ(fake_redis, email={"OPTIONS": given}),
        ):
            with pytest.raises(ConfigurationError, match=f"{name}=.* workers read it from the registered task"):
                refused()
        TaskQ(fake_redis, defaults=given)

    def test_a_dead_letter_task_can_only_have_another_queue(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        report = taskq.task(name="report", max_retry=3)(lambda: None)

        assert TaskOptions(dead_letter=report.using(queue="low")).dead_letter_address == ("low", "report")
        for given in (report.using(max_retry=1), taskq.remote("report", max_retry=1)):
            with pytest.raises(
                ConfigurationError, match="cannot set max_retry, because the message contains only its name"
            ):
                TaskOptions(dead_letter=given)

    def test_on_missing_needs_a_model_parameter(self, fake_redis: Any) -> None:
        with pytest.raises(ConfigurationError, match="task 't': on_missing has no effect, because no parameter"):
            TaskQ(fake_redis).task(name="t", on_missing="discard")(lambda: None)

    def test_an_invalid_option_is_refused_at_once(self, fake_redis: Any) -> None:
        task = TaskQ(fake_redis).remote("t")

        with pytest.raises(ConfigurationError, match="unknown task option 'run_at'; did you mean"):
            task.using(run_at=1)  # type: ignore[call-arg]  # the point of the test
        with pytest.raises(ConfigurationError, match="max_retry must be between"):
            task.s().using(max_retry=-1)


class TestApplicationDefaults:
    def test_options_of_a_task_override_defaults(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis, defaults={"queue": "d", "max_retry": 1, "retention": timedelta(minutes=1)})
        task = taskq.remote("t", queue="own")

        assert (task.options.queue, task.options.max_retry, task.options.retention_s) == ("own", 1, 60)

    def test_new_settings_apply_to_existing_tasks(self, fake_redis: Any) -> None:
        """`configure` changes the defaults of registered tasks, also of those enqueued before."""
        taskq = TaskQ(fake_redis)
        task = taskq.remote("t")
        task.delay()

        taskq.configure(taskq.settings.__class__(url=fake_redis, defaults={"queue": "d"}, prefix="p"))
        handle = task.delay()

        assert handle.queue == "d"
        assert fake_redis.llen("p:{d}:pending") == 1

    @rows(
        ("defaults", "message"),
        [
            ({"quue": "x"}, "DEFAULTS: unknown task option 'quue'; did you mean 'queue'?"),
            ({"max_retry": -1}, "DEFAULTS: max_retry must be between 0 and 2147483647, got -1"),
            ({"task_id": "x"}, "DEFAULTS: task_id cannot be the same for all tasks"),
        ],
    )
    def test_invalid_defaults_are_refused_at_once(self, defaults: Any, message: str) -> None:
        with pytest.raises(ConfigurationError) as caught:
            TaskQ(defaults=defaults)

        assert str(caught.value).startswith(message)

    def test_refused_settings_change_nothing(self, fake_redis: Any) -> None:
        taskq = TaskQ(fake_redis)
        before = taskq.settings

        with pytest.raises(ConfigurationError):
            taskq.configure(before.__class__(defaults={"quue": "x"}))

        assert taskq.settings is before
        assert taskq.remote("t").delay().id


class TestPlacesOfOptions:
    """Each option exists wherever options are listed, or is left out there for a reason."""

    def test_types_name_every_option(self) -> None:
        assert set(TaskOptionsDict.__annotations__) == set(OPTION_NAMES)

    def test_the_reference_describes_every_option(self) -> None:
        page = (Path(__file__).parents[3] / "docs" / "reference" / "task-options.md").read_text(encoding="utf-8")
        rows_of_table = re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)

        assert set(OPTION_NAMES) - set(rows_of_table) == set()

    def test_the_command_line_sets_every_option_of_a_call(self) -> None:
        left_out = {"unique", "sequence"}  # they compare arguments, and the command sends a payload as it is
        other_names = {"process_at": "run_after", "process_in": "run_after"}
        no_options = {"name", "positional_name", "payload", "payload_file"}

        params = {str(param.name) for param in enqueue.params} - no_options

        assert {other_names.get(name, name) for name in params} == CALL_OPTIONS - left_out
