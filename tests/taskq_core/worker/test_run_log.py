"""Test the log lines about the end of a run."""

import asyncio
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import sentry_sdk
from sentry_sdk.envelope import Envelope
from sentry_sdk.integrations.logging import LoggingIntegration
from sentry_sdk.transport import Transport

from taskq_core import Retry, SkipRetry, TaskQ
from taskq_core.settings import LogSettings
from taskq_core.telemetry.redaction import Redaction
from taskq_core.testing import capture, drain
from tests.clock import Clock
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, until, until_released

SECRET = "a@b.example"
"""Stands for an argument that got into the words of an exception."""


class DeliveryError(Exception):
    """Raised by a library."""


def deliver() -> None:
    raise DeliveryError(f"nobody is called {SECRET}")


def fails() -> None:
    deliver()


def fails_because() -> None:
    try:
        deliver()
    except DeliveryError as error:
        raise SkipRetry(f"gave up on {SECRET}") from error


def fails_because_of() -> None:
    try:
        deliver()
    except DeliveryError as error:
        raise ValueError(f"gave up on {SECRET}") from error


def fails_twice() -> None:
    try:
        deliver()
    except DeliveryError:
        raise LookupError(SECRET)  # noqa: B904 - the context alone


def asks_for_another_attempt() -> None:
    try:
        deliver()
    except DeliveryError as error:
        raise Retry(after=600) from error


async def fails_in_a_group() -> None:
    async def one() -> None:
        fails()

    async with asyncio.TaskGroup() as group:
        group.create_task(one())


def overruns() -> None:
    until_released()


async def aoverruns() -> None:
    await asyncio.Event().wait()


PRODUCED: list[tuple[Callable[[], Any], str, list[str], list[str]]] = [
    (fails, "DeliveryError", ["fails", "deliver"], []),
    (fails_because, "SkipRetry", ["fails_because", "deliver"], ["DeliveryError\n", "direct cause"]),
    (fails_twice, "LookupError", ["fails_twice", "deliver"], ["DeliveryError\n", "During handling"]),
    (asks_for_another_attempt, "Retry", ["asks_for_another_attempt", "deliver"], ["DeliveryError\n"]),
    (fails_in_a_group, "ExceptionGroup", ["fails_in_a_group", "one", "fails", "deliver"], ["DeliveryError\n"]),
    (overruns, "TimeoutError", ["overruns"], ["TaskInterrupted\n"]),
    (aoverruns, "TimeoutError", ["aoverruns"], ["CancelledError\n"]),
]


@pytest.mark.parametrize("messages", [True, False], ids=["messages", "no messages"])
@pytest.mark.parametrize(
    ("function", "name", "frames", "further"), PRODUCED, ids=lambda each: getattr(each, "__name__", "")
)
async def test_a_failure_is_logged_with_the_traceback_of_the_users_code(
    app: TaskQ,
    start: Runner,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
    messages: bool,
    function: Any,
    name: str,
    frames: list[str],
    further: list[str],
) -> None:
    """The traceback starts at the task's function and has causes and group members. A setting removes the messages."""
    ends = Ends()
    app.configure(replace(app.settings, log=LogSettings(exception_messages=messages)))
    task = app.task(name="work", max_retry=3, retry_delay=600, timeout=60)(function)
    worker = await start(listener=ends)
    handle = await task.adelay()
    if "overruns" in function.__name__:
        await until(lambda: worker.running_count == 1)
        await clock.advance(61)
    await until(lambda: ends.ends)

    (record,) = [each for each in caplog.records if each.name == "taskq.worker" and each.levelno >= logging.WARNING]
    text = logging.Formatter("%(message)s").format(record)
    assert record.getMessage().startswith(f"task failed: name=work id={handle.id} attempt=1/4 error={name}")
    assert record.getMessage().endswith(" state=archived" if name == "SkipRetry" else " next_retry=600s")
    assert record.levelname == ("ERROR" if name == "SkipRetry" else "WARNING")
    for frame in frames:
        assert f", in {frame}\n" in text
    for words in further:
        assert words in text if not messages else words.removesuffix("\n") in text
    assert "taskq_core/worker/executor.py" not in text
    assert (SECRET in text) is (messages and "overruns" not in function.__name__)
    assert [type(error).__name__ for error in ends.errors] == [name]


def logged(caplog: pytest.LogCaptureFixture, function: Callable[[], Any], **settings: Any) -> list[logging.LogRecord]:
    """Run a task until it has ended, and return what the worker logs of it."""
    taskq = TaskQ("redis://nobody:1", defaults={"max_retry": 1, "retry_delay": 5}, **settings)
    task = taskq.task(name="work")(function)
    with caplog.at_level(logging.INFO, "taskq.worker"), capture(taskq):
        task.delay()
        drain(taskq, advance=60, raises=False)
    return [each for each in caplog.records if each.name == "taskq.worker" and hasattr(each, "duration_s")]


def test_success_is_logged_with_its_duration(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = logged(caplog, lambda: None)

    assert record.levelname == "INFO"
    assert re.fullmatch(r"task completed: name=work id=\S+ attempt=1/2 duration=0\.\d{3}s", record.getMessage())


def test_a_hook_scrubs_the_messages_of_logs(caplog: pytest.LogCaptureFixture) -> None:
    """Messages of causes are scrubbed too. If the hook fails, the message is hidden and the line is logged."""

    def scrub(message: str) -> str:
        return message.replace(SECRET, "***")

    def fails_itself(message: str) -> str:
        raise RuntimeError(message)

    for hook, shown in ((scrub, "nobody is called ***"), (fails_itself, "no message: the function in LOG")):
        caplog.clear()
        first, last = logged(caplog, fails_because_of, log={"EXCEPTION_MESSAGES": hook})
        text = logging.Formatter().format(first) + logging.Formatter().format(last)
        assert text.count(shown) >= 2
        assert SECRET not in text


@pytest.fixture
def events() -> Iterator[list[dict[str, Any]]]:
    """Collect the events that Sentry's SDK sends for log records."""
    sent: list[dict[str, Any]] = []

    class Sent(Transport):
        def capture_envelope(self, envelope: Envelope) -> None:
            event = envelope.get_event()
            if event is not None:
                sent.append(event)

    with sentry_sdk.isolation_scope():
        sentry_sdk.init(
            dsn="https://key@sentry.example/1",
            transport=Sent,
            integrations=[LoggingIntegration(event_level=logging.ERROR)],
            data_collection={"stack_frame_variables": False},
            auto_enabling_integrations=False,  # they would change other libraries for the rest of this process
        )
        yield sent
        sentry_sdk.get_client().close()
        sentry_sdk.get_global_scope().set_client(None)


@pytest.mark.parametrize("level", ["WARNING", "ERROR"])
def test_sentry_gets_one_event_for_each_task_that_failed_or_one_for_each_failure(
    caplog: pytest.LogCaptureFixture, events: list[dict[str, Any]], level: str
) -> None:
    def work() -> None:
        _ = {}[SECRET]  # type: ignore[var-annotated]  # fails

    logged(caplog, work, log={"RETRY_LEVEL": level})

    events_of_runs = [event for event in events if "task_name" in event["extra"]]
    assert len(events_of_runs) == (2 if level == "ERROR" else 1)
    for event in events_of_runs:
        (error,) = event["exception"]["values"]
        assert (error["type"], error["value"]) == ("KeyError", repr(SECRET))
        [frame] = error["stacktrace"]["frames"]
        assert (frame["function"], frame.get("vars")) == ("work", None)
        assert event["extra"]["task_name"] == "work"
        assert event["logger"] == "taskq.worker"


async def test_a_stopping_worker_logs_the_tasks_it_waits_for(
    app: TaskQ, start: Runner, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(name="work")
    async def work() -> None:
        await asyncio.Event().wait()

    worker = await start(shutdown_grace=9)
    with caplog.at_level(logging.INFO, "taskq.worker"):
        handle = await work.adelay()
        await until(lambda: worker.running_count == 1)
        worker.stop()
        await clock.advance(20)

    lines = [each.getMessage() for each in caplog.records if each.getMessage().startswith("stop")]
    tasks = rf"work \(id={handle.id}, running for \d+s\)"
    expected = [
        f"stopping: waiting up to 9s for 1 running tasks: {tasks}",
        f"stopping: waiting up to 4s for 1 running tasks: {tasks}",
        f"stopping: 1 tasks still run and go back to their queue: {tasks}",
        "stopped: 1 tasks have ended on this worker",
    ]
    assert len(lines) == len(expected)
    assert all(re.fullmatch(form, line) for form, line in zip(expected, lines, strict=True)), lines


async def test_a_failure_before_the_users_code_is_logged_without_a_stack(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    ends = Ends()
    await start(listener=ends, unknown_task_timeout=0)
    await app.remote("unknown").adelay()
    await until(lambda: ends.ends)

    (record,) = [each for each in caplog.records if each.name == "taskq.worker" and each.levelno >= logging.WARNING]
    assert " error=UnknownTaskError: " in record.getMessage()
    assert "Traceback" not in logging.Formatter().format(record)


@pytest.mark.parametrize("length", [1, 100])
def test_a_chain_of_causes_is_cut(length: int) -> None:
    """Test a cycle of causes, and a long chain as made by retries in a loop."""
    errors = [ValueError(SECRET) for _ in range(length)]
    for number, error in enumerate(errors):
        error.__cause__ = errors[(number + 1) % length]

    shown = Redaction(False).shown(errors[0])

    text = logging.Formatter().formatException((type(shown), shown, None))
    assert text.count("ValueError") == min(length, 11)
    assert SECRET not in text


@pytest.mark.parametrize("broken", ["record factory", "filter"])
async def test_a_projects_log_factories_and_filters_stop_no_worker(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, broken: str
) -> None:
    """A factory sets names that taskq sets as well; a filter raises."""
    factory = logging.getLogRecordFactory()

    def with_names(*words: Any, **options: Any) -> logging.LogRecord:
        record = factory(*words, **options)
        record.request_id = record.trace_id = record.queue = record.task_id = "the project's"
        return record

    def fail(record: logging.LogRecord) -> bool:
        if "task completed" in record.msg:
            raise ValueError("in a filter")
        return True

    if broken == "filter":
        monkeypatch.setattr(logging.getLogger("taskq.worker"), "filters", [fail])
    else:
        logging.setLogRecordFactory(with_names)
    try:
        with caplog.at_level(logging.INFO, "taskq.worker"):
            work = app.task(name="work", retention=60)(lambda: "done")
            worker = await start(concurrency=2)
            handles = [await work.adelay() for _ in range(5)]
            assert [await handle.aresult(PATIENCE_S) for handle in handles] == ["done"] * 5
            await until(lambda: worker.running_count == 0)
    finally:
        logging.setLogRecordFactory(factory)
