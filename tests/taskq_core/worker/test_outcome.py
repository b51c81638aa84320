"""Test the outcome of a run: exceptions that control the queue, retry policies, error texts and results."""

import logging
import math
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import (
    Discard,
    Retry,
    SkipRetry,
    Snooze,
    TaskContext,
    TaskFailedError,
    TaskQ,
    UnknownTaskError,
    current_task,
    exponential,
)
from taskq_core.broker.operations.runs import Outcome, Settlement
from taskq_core.wire import QueueKeys, TaskMessage, build_message, decode_message
from taskq_core.worker.outcome import describe, settle
from taskq_core.worker.run import Ending, Run
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import PATIENCE_S, Ends, Runner, state_of, stored, until

NOW_S = 1_700_000_000


def decide(
    error: BaseException | None = None,
    *,
    result: object = None,
    retried: int = 0,
    retry: int = 3,
    retention: int = 0,
    ending: Ending | None = None,
    **options: Any,
) -> Settlement:
    """Decide on one run of a task with these options."""
    app = TaskQ("redis://localhost:1")

    @app.task(name="task", **options)
    def task() -> None: ...

    message = build_message(
        type="task", payload=b"{}", id="x", queue="default", retry=retry, retried=retried, retention=retention
    )
    run = Run(app.runtime.keys.queue("default"), "x", message, 0.0)
    run.task = task
    run.context = TaskContext(id="x", name="task", queue="default", retried=retried, max_retry=retry)
    run.ending = ending
    return settle(run, result, error, now_s=NOW_S, duration_s=0.1)


def text(settlement: Settlement) -> str:
    return decode_message(settlement.message).error_msg


# --- types that a worker does not know --------------------------------------------------------------------------------


def refuse(message: TaskMessage, now_s: float, *, timeout_s: float = 3600) -> Settlement:
    """Decide on a run whose type the worker does not know."""
    app = TaskQ("redis://localhost:1")
    run = Run(app.runtime.keys.queue("default"), "x", message, 0.0)
    run.task = app.handlers.find(message.type)
    error = UnknownTaskError(message.type)
    return settle(run, None, error, now_s=now_s, duration_s=0.0, unknown_timeout_s=timeout_s)


def test_a_task_of_an_unknown_type_waits_longer_each_time_until_its_timeout() -> None:
    """The delay grows to at most a minute and uses no attempt. Only the first refusal is recorded."""
    message = build_message(type="new", payload=b"{}", id="x", queue="default", retry=0)
    now_s, delays_s, records = float(NOW_S), [], []
    while (settlement := refuse(message, now_s)).outcome is Outcome.RETRY_UNCOUNTED:
        delays_s.append(settlement.delay_ms / 1000)
        records.append(settlement.record)
        message = decode_message(settlement.message)
        now_s = math.ceil(now_s + delays_s[-1])

    assert settlement.outcome is Outcome.ARCHIVE
    assert text(settlement).startswith('handler not found for task "new"')
    assert 3600 <= now_s - NOW_S <= 3660
    assert delays_s[0] <= 1
    assert max(delays_s) <= 60
    assert len(delays_s) < 200
    assert [bool(each) for each in records] == [True] + [False] * (len(records) - 1)
    assert message.retried == 0


def test_time_without_a_worker_hardly_counts_for_an_unknown_type() -> None:
    """An example is a queue that was paused for hours."""
    message = build_message(type="new", payload=b"{}", id="x", queue="default", retry=3)
    message = decode_message(refuse(message, NOW_S).message)

    assert refuse(message, NOW_S + 90_000).outcome is Outcome.RETRY_UNCOUNTED


def test_a_failure_with_a_known_type_resets_the_timeout_of_unknown_types() -> None:
    message = build_message(type="new", payload=b"{}", id="x", queue="default", retry=3)
    message = decode_message(refuse(message, NOW_S).message)
    message.error_msg = "ValueError: a worker that knows it ran it"

    assert refuse(message, NOW_S + 30, timeout_s=20).outcome is Outcome.RETRY_UNCOUNTED


# --- steering ---------------------------------------------------------------------------------------------------------


async def test_a_retry_with_after_waits_for_the_given_time(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """`Retry(after=)` uses an attempt; the error behind it is what is stored."""
    attempts = []

    @app.task
    def again(number: int) -> str:
        attempts.append(current_task().attempt)
        if len(attempts) == 1:
            try:
                raise ConnectionError("no line")
            except ConnectionError as error:
                raise Retry(after=120) from error
        return "done"

    ends = Ends()
    await start(listener=ends)
    handle = await again.adelay(1)
    first = await until(lambda: (message := stored(redis_server, queue, handle.id)).retried and message)
    await clock.advance(60)
    assert attempts == [1]
    await clock.advance(62)

    assert await handle.aresult(PATIENCE_S) == "done"
    assert (first.retried, first.error_msg) == (1, "ConnectionError: no line")
    assert attempts == [1, 2]
    assert ends.of(handle.id) == ["retried", "completed"]


async def test_snooze_uses_no_attempt(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """A task may snooze more often than it may fail, and it counts as no failure."""
    runs = []

    @app.task(max_retry=0)
    async def later() -> str:
        runs.append(current_task().attempt)
        if len(runs) < 3:
            raise Snooze(after=timedelta(seconds=5))
        return "done"

    ends = Ends()
    await start(listener=ends)
    handle = await later.adelay()
    for number in (1, 2):
        await until(lambda: len(ends.of(handle.id)) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(7)

    assert await handle.aresult(PATIENCE_S) == "done"
    assert runs == [1, 1, 1]
    assert ends.of(handle.id) == ["snoozed", "snoozed", "completed"]
    message = stored(redis_server, queue, handle.id)
    assert (message.retried, message.error_msg) == (0, "")
    assert redis_server.client.get(queue.failed) is None
    assert redis_server.client.get(queue.processed) == b"1"


async def test_skip_retry_archives_at_once(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """This holds with attempts left. The stored error is the reason."""

    @app.task(max_retry=5)
    def hopeless() -> None:
        raise SkipRetry("the order is gone")

    await start()
    handle = await hopeless.adelay()

    with pytest.raises(TaskFailedError, match="the order is gone"):
        await handle.aresult(PATIENCE_S)
    assert stored(redis_server, queue, handle.id).retried == 0


async def test_discard_deletes_the_task_and_its_lock(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys
) -> None:
    """The task is neither retried nor archived nor kept."""

    @app.task(unique_for=100)
    async def obsolete() -> None:
        raise Discard

    ends = Ends()
    await start(listener=ends)
    handle = await obsolete.adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) is None)
    again = await obsolete.adelay()
    await until(lambda: ends.of(again.id))
    await until(lambda: state_of(redis_server, queue, again.id) is None)

    assert ends.of(handle.id) == ends.of(again.id) == ["discarded"]
    assert redis_server.client.get(queue.failed) is None


async def test_the_last_failure_archives_the_task(
    app: TaskQ, start: Runner, redis_server: RedisServer, queue: QueueKeys, clock: Clock
) -> None:
    """A task runs `max_retry + 1` times."""
    runs = []

    @app.task(max_retry=2, retry_delay=0)
    def fail() -> None:
        runs.append(1)
        raise ValueError(f"failure {len(runs)}")

    await start()
    handle = await fail.adelay()
    for number in (1, 2):
        await until(lambda: len(runs) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(2)

    with pytest.raises(TaskFailedError, match="ValueError: failure 3"):
        await handle.aresult(PATIENCE_S)
    assert len(runs) == 3
    assert stored(redis_server, queue, handle.id).retried == 2
    assert redis_server.client.get(queue.failed) == b"3"


def test_a_failure_without_attempts_left_archives_the_task(subtests: pytest.Subtests) -> None:
    """This holds even if the task requested a retry."""
    for error in [Retry(after=1), Retry(), ValueError("x")]:
        with subtests.test(error=error):
            assert decide(error, retried=3, retry=3).outcome is Outcome.ARCHIVE


def test_an_invalid_delay_fails_the_task_with_a_clear_error(subtests: pytest.Subtests) -> None:
    """The outcome is not lost for it; the task's own policy gives the delay."""
    for error, outcome in [
        (Retry(after="soon"), Outcome.RETRY),
        (Snooze(after=None), Outcome.RETRY),
        (Retry(after=math.nan), Outcome.RETRY),
    ]:
        with subtests.test(error=error, outcome=outcome):
            settlement = decide(error, retry_delay=7)

            assert (settlement.outcome, settlement.delay_ms) == (outcome, 7000)
            assert "(after=) takes seconds or a timedelta" in text(settlement)


def test_delays_are_limited_to_the_storable_range(subtests: pytest.Subtests) -> None:
    """Negative means now, endless a century; a fraction is rounded up, so nothing starts early."""
    for after, expected_ms in [(-5, 0), (0, 0), (1.0001, 1001), (math.inf, 3_000_000_000_000)]:
        with subtests.test(after=after, expected_ms=expected_ms):
            assert decide(Snooze(after=after)).delay_ms == expected_ms
            assert decide(Retry(after=after)).delay_ms == expected_ms


def test_a_skip_retry_reason_is_converted_to_text() -> None:
    """`SkipRetry(error)` is an easy slip."""
    settlement = decide(SkipRetry(KeyError("k")))  # type: ignore[arg-type]  # what is tested

    assert settlement.outcome is Outcome.ARCHIVE
    assert text(settlement) == "'k'"


# --- policies ---------------------------------------------------------------------------------------------------------


def test_the_default_delay_equals_asynqs(subtests: pytest.Subtests) -> None:
    """The delay is n^4 + 15 + rand{0..29} * (n + 1) seconds."""
    for retried in [0, 1, 5, 24]:
        with subtests.test(retried=retried):
            for _ in range(50):
                delay_s = decide(ValueError(), retried=retried, retry=25).delay_ms / 1000

                assert retried**4 + 15 <= delay_s <= retried**4 + 15 + 29 * (retried + 1)


def test_a_retry_delay_policy_gives_the_delay_of_each_failure(subtests: pytest.Subtests) -> None:
    for policy, expected_ms in [
        (3, [3000, 3000, 3000]),
        (timedelta(minutes=1), [60_000, 60_000, 60_000]),
        ([1, 2.5], [1000, 2500, 2500]),
        (exponential(2, factor=3, jitter=False), [2000, 6000, 18_000]),
        (exponential(2, factor=3, limit=5, jitter=False), [2000, 5000, 5000]),
        (lambda retried, error: retried * 10, [0, 10_000, 20_000]),
        (lambda retried, error: timedelta(seconds=4), [4000, 4000, 4000]),
        (lambda retried, error: -1, [0, 0, 0]),
    ]:
        with subtests.test(policy=policy, expected_ms=expected_ms):
            assert [
                decide(ValueError(), retried=n, retry=9, retry_delay=policy).delay_ms for n in range(3)
            ] == expected_ms


def test_a_policy_function_receives_the_error() -> None:
    """A function decides by what was raised."""
    seen: list[BaseException] = []
    error = ValueError()

    def policy(retried: int, error: BaseException) -> float:
        seen.append(error)
        return 1

    decide(error, retry_delay=policy)

    assert seen == [error]


def _raises(retried: int, error: BaseException) -> float:
    raise RuntimeError("broken policy")


@pytest.mark.parametrize("policy", [_raises, lambda r, e: None, lambda r, e: "x", lambda r, e: math.nan])
def test_a_policy_that_raises_falls_back_to_asynqs_delay(
    policy: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """The outcome is not lost; the log says what happened."""
    settlement = decide(ValueError(), retry_delay=policy)

    assert settlement.outcome is Outcome.RETRY
    assert 15_000 <= settlement.delay_ms <= 44_000
    assert "the retry_delay of task task failed" in caplog.text


def test_a_policy_function_may_receive_the_context() -> None:
    def policy(retried: int, error: BaseException, context: TaskContext) -> float:
        return context.max_retry - context.attempt

    assert decide(ValueError(), retried=1, retry=9, retry_delay=policy).delay_ms == 7000


# --- what counts as a failure -----------------------------------------------------------------------------------------


def _counts(error: BaseException) -> bool:
    """Return whether the error counts as a failure."""
    return not isinstance(error, OSError)


def test_an_error_that_does_not_count_as_failure_uses_no_attempt(subtests: pytest.Subtests) -> None:
    """The task is retried after its usual delay, as often as it takes, with the error's text stored."""
    for given, outcome, retried in [
        ({"error": ConnectionError("line")}, Outcome.RETRY_UNCOUNTED, 1),
        ({"error": ValueError()}, Outcome.RETRY, 2),
        ({"error": ConnectionError(), "retried": 3}, Outcome.ARCHIVE, 3),  # as in Go: none is left, counted or not
        ({"error": ConnectionError(), "retried": 0, "retry": 0}, Outcome.ARCHIVE, 0),
        ({"error": ConnectionError(), "no_retry_on": OSError}, Outcome.ARCHIVE, 1),
        ({"error": SkipRetry()}, Outcome.ARCHIVE, 1),
        ({"error": None, "ending": Ending.TIMEOUT}, Outcome.RETRY_UNCOUNTED, 1),  # TimeoutError is an OSError
        ({"error": ConnectionError(), "ending": Ending.CANCELLED}, Outcome.ARCHIVE, 1),
        ({"error": Retry(after=1)}, Outcome.RETRY, 2),  # the task's own word
    ]:
        with subtests.test(given=given, outcome=outcome, retried=retried):
            settlement = decide(**{"retried": 1, "retry_delay": 7, "is_failure": _counts, **given})
            message = decode_message(settlement.message)

            assert (settlement.outcome, message.retried) == (outcome, retried)
            assert message.last_failed_at == NOW_S
            if isinstance(given["error"], ConnectionError) and outcome is Outcome.RETRY_UNCOUNTED:
                assert (message.error_msg, settlement.delay_ms) == ("ConnectionError: line", 7000)


def _broken(error: BaseException) -> bool:
    raise RuntimeError("broken judge")


def test_an_error_counts_when_is_failure_raises(caplog: pytest.LogCaptureFixture) -> None:
    """The outcome is not lost; the log says what happened."""
    assert decide(ValueError(), is_failure=_broken).outcome is Outcome.RETRY
    assert "the option is_failure of task task failed; the error counts as a failure" in caplog.text


def test_the_result_of_is_failure_is_converted_to_bool() -> None:
    judge: Any
    for judge, outcome in ((lambda error: 0, Outcome.RETRY_UNCOUNTED), (lambda error: "yes", Outcome.RETRY)):
        assert decide(ValueError(), is_failure=judge).outcome is outcome


async def test_the_application_can_define_is_failure(
    redis_server: RedisServer, start: Runner, queue: QueueKeys, clock: Clock
) -> None:
    """It applies to tasks without their own option. Errors that do not count change no failure counter."""
    defaults: Any = {"retention": 60, "retry_delay": 0, "max_retry": 1, "is_failure": _counts}
    app = TaskQ(redis_server.url, defaults=defaults, enqueue_timeout=PATIENCE_S)
    runs: list[int] = []

    @app.task
    async def flaky() -> str:
        runs.append(current_task().attempt)
        if len(runs) < 4:
            raise ConnectionError
        return "done"

    @app.task(is_failure=lambda error: True)
    async def strict() -> None:
        raise ConnectionError

    await start(app=app)
    handle = await flaky.adelay()
    for number in (1, 2, 3):
        await until(lambda: len(runs) >= number)  # noqa: B023 - awaited in the loop
        await clock.advance(2)
    assert await handle.aresult(PATIENCE_S) == "done"
    assert runs == [1, 1, 1, 1]
    assert redis_server.client.get(queue.failed) is None
    assert redis_server.client.get(queue.processed) == b"1"

    failing = await strict.adelay()
    await until(lambda: redis_server.client.get(queue.failed))
    await clock.advance(2)
    with pytest.raises(TaskFailedError):
        await failing.aresult(PATIENCE_S)
    assert redis_server.client.get(queue.failed) == b"2"
    await app.aclose()


def test_retry_on_and_no_retry_on_decide_by_exception_class(subtests: pytest.Subtests) -> None:
    """`no_retry_on` goes before `retry_on`."""
    for options, error, outcome in [
        ({"retry_on": ConnectionError}, ConnectionRefusedError(), Outcome.RETRY),
        ({"retry_on": ConnectionError}, ValueError(), Outcome.ARCHIVE),
        ({"no_retry_on": (KeyError, ValueError)}, ValueError(), Outcome.ARCHIVE),
        ({"no_retry_on": ValueError}, KeyError(), Outcome.RETRY),
        ({"retry_on": OSError, "no_retry_on": FileNotFoundError}, FileNotFoundError(), Outcome.ARCHIVE),
        ({"retry_on": OSError, "no_retry_on": FileNotFoundError}, PermissionError(), Outcome.RETRY),
    ]:
        with subtests.test(options=options, error=error, outcome=outcome):
            assert decide(error, **options).outcome is outcome


def test_a_timeout_counts_as_a_timeout_error_for_class_options() -> None:
    """Class options see it so, whatever interrupted the function."""
    assert decide(None, ending=Ending.TIMEOUT).outcome is Outcome.RETRY
    assert decide(None, ending=Ending.TIMEOUT, no_retry_on=TimeoutError).outcome is Outcome.ARCHIVE
    assert decide(None, ending=Ending.TIMEOUT, retry_on=TimeoutError).outcome is Outcome.RETRY


def test_a_requested_retry_ignores_class_options() -> None:
    """`Retry` is the task's own word."""
    assert decide(Retry(after=1), retry_on=ConnectionError).outcome is Outcome.RETRY


# --- texts ------------------------------------------------------------------------------------------------------------


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class WrongTextError(Exception):
    def __str__(self) -> str:
        return 5  # type: ignore[return-value]  # what is tested


def test_an_error_is_described_by_class_and_text(subtests: pytest.Subtests) -> None:
    """A broken `__str__` does not lose the outcome."""
    for error, expected in [
        (ValueError("plain"), "ValueError: plain"),
        (ValueError(), "ValueError"),
        (UnprintableError(), "UnprintableError: (its text cannot be read)"),
        (WrongTextError(), "WrongTextError: (its text cannot be read)"),
    ]:
        with subtests.test(error=error, expected=expected):
            assert describe(error) == expected


@pytest.mark.parametrize(
    ("given", "stored_text"),
    [
        ("lone \ud800 surrogate", "ValueError: lone \ufffd surrogate"),
        ("zero \0 byte", "ValueError: zero \0 byte"),
        ("x" * 10_000_000, None),
        ("ü" * 10_000_000, None),
        ("\udcff" * 1_000_000, None),
    ],
    ids=["surrogate", "NUL", "10 MB", "20 MB", "surrogates"],
)
async def test_error_texts_are_cleaned_and_cut(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    queue: QueueKeys,
    caplog: pytest.LogCaptureFixture,
    given: str,
    stored_text: str | None,
) -> None:
    """An acknowledgement never fails for its text, and no text is over 4 KiB."""
    caplog.set_level(logging.CRITICAL, "taskq.worker")  # pytest cannot report a log record with a lone surrogate

    @app.task(max_retry=0)
    def fail() -> None:
        raise ValueError(given)

    await start()
    handle = await fail.adelay()
    await until(lambda: state_of(redis_server, queue, handle.id) == "archived")

    message = stored(redis_server, queue, handle.id)
    assert len(message.error_msg.encode()) <= 4096
    assert stored_text is None or message.error_msg == stored_text


# --- results ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [object(), {1, object()}, math.nan, "\ud800"], ids=["object", "set", "nan", "surrogate"]
)
async def test_a_result_without_json_form_archives_the_task(app: TaskQ, start: Runner, value: object) -> None:
    """The function ran, so running it again would not help; the text says that it returned."""

    @app.task
    def odd() -> Any:
        return value

    ends = Ends()
    await start(listener=ends)
    handle = await odd.adelay()

    with pytest.raises(TaskFailedError, match="the task returned, but result:"):
        await handle.aresult(PATIENCE_S)
    assert ends.of(handle.id) == ["archived"]


def test_a_result_without_retention_is_not_encoded() -> None:
    """Without retention the result may be any object."""
    assert decide(None, result=object()).outcome is Outcome.DONE


# --- interrupted runs -------------------------------------------------------------------------------------------------


def test_a_cancelled_task_is_archived(subtests: pytest.Subtests) -> None:
    """This holds for any reaction of its function."""
    for error in [None, ValueError(), Retry(after=1), BaseException()]:
        with subtests.test(error=error):
            settlement = decide(error, ending=Ending.CANCELLED)

            assert settlement.outcome is Outcome.ARCHIVE
            assert text(settlement) == "context canceled"


def test_a_task_that_succeeds_during_a_shutdown_is_completed() -> None:
    """Only a task that did not finish is requeued."""
    assert decide(None, ending=Ending.SHUTDOWN).outcome is Outcome.DONE
    assert decide(BaseException(), ending=Ending.SHUTDOWN).outcome is Outcome.REQUEUE
