"""Failures of steps: what the code gets, when a failure is stored, and how often a step is repeated."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest

from taskq_core import (
    ConfigurationError,
    Retry,
    StepFailedError,
    TaskContext,
    TaskHandle,
    TaskQ,
    TaskState,
    current_task,
)
from taskq_core.errors import StepError, TaskFailedError, WorkflowFailedError
from taskq_core.testing import capture
from tests.clock import Clock
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import Runner, until

pytestmark = pytest.mark.redis


class CardDeclined(Exception):  # noqa: N818 - named as shops name it
    """An error with a code, made from its arguments."""

    def __init__(self, code: str, amount: int) -> None:
        super().__init__(code, amount)
        self.code, self.amount = code, amount


def state(handle: TaskHandle[Any]) -> TaskState:
    return handle.refresh().state


async def has_state(handle: TaskHandle[Any], wanted: TaskState) -> None:
    await until(lambda: state(handle) is wanted)


class Shop:
    """Functions of steps. They record their calls, and `charge` fails at first."""

    def __init__(self, failures: int = 1) -> None:
        self.calls: list[str] = []
        self.failures = failures

    def charge(self) -> str:
        self.calls.append("charge")
        if self.calls.count("charge") <= self.failures:
            raise CardDeclined("no money", 7)
        return "paid"

    async def acharge(self) -> str:
        return self.charge()

    def note(self, what: str) -> str:
        self.calls.append(what)
        return what


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
@pytest.mark.parametrize("declared", [(), (CardDeclined,)], ids=["undeclared", "declared"])
async def test_a_failure_that_the_code_has_caught_is_raised_again_in_each_later_run(
    app: TaskQ, start: Runner, clock: Clock, kind: str, declared: tuple[type[Exception], ...]
) -> None:
    shop, caught = Shop(), []
    expected: Any = CardDeclined if declared else StepFailedError

    @app.task(retention=60, step_errors=declared)
    def plain(context: TaskContext) -> str:
        try:
            result = context.step("charge", shop.charge)
        except expected as error:
            caught.append(error)
            result = context.step("release", shop.note, "release")
        context.sleep(60)
        return result

    @app.task(retention=60, step_errors=declared)
    async def coroutine(context: TaskContext) -> str:
        try:
            result = await context.astep("charge", shop.acharge)
        except expected as error:
            caught.append(error)
            result = await context.astep("release", shop.note, "release")
        await context.asleep(60)
        return result

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await has_state(handle, TaskState.SCHEDULED)
    await clock.advance(61)

    assert await handle.aresult(timeout=30) == "release"
    assert shop.calls == ["charge", "release"]
    first, later = caught
    assert type(first) is type(later) is expected
    assert first.args == later.args == (("no money", 7) if declared else ("charge", "CardDeclined", "('no money', 7)"))
    assert isinstance(first.__cause__, CardDeclined)
    assert later.__cause__ is None
    if declared:
        assert (later.code, later.amount) == ("no money", 7)


async def test_a_failure_that_ends_the_run_is_not_stored_and_error_handlers_get_the_original(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    shop, errors = Shop(), []
    app.on_error(lambda error, context: errors.append(error))

    @app.task(retention=60, retry_delay=1, retry_on=CardDeclined)
    async def order(context: TaskContext) -> str:
        return await context.astep("charge", shop.acharge)

    await start()
    handle = await order.adelay()
    await has_state(handle, TaskState.RETRY)
    assert handle.refresh().last_error == "CardDeclined: ('no money', 7)"
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == "paid"
    assert [type(each) for each in errors] == [CardDeclined]


async def test_a_stored_failure_that_ends_a_run_archives_the_task(app: TaskQ, start: Runner, clock: Clock) -> None:
    shop = Shop(failures=99)

    @app.task(retention=60)
    async def order(context: TaskContext) -> None:
        try:
            await context.astep("charge", shop.acharge)
        except StepFailedError:
            await context.asleep(60)
            raise

    await start()
    handle = await order.adelay()
    await has_state(handle, TaskState.SCHEDULED)
    await clock.advance(61)

    with pytest.raises(
        TaskFailedError, match=r"StepFailedError: step 'charge' failed: CardDeclined: \('no money', 7\)"
    ):
        await handle.aresult(timeout=30)
    assert shop.calls == ["charge"]


async def _in_helper(context: TaskContext, shop: Shop) -> None:
    try:
        await context.astep("charge", shop.acharge)
    except StepFailedError:
        return


async def _gathered(context: TaskContext, shop: Shop) -> None:
    await asyncio.gather(context.astep("charge", shop.acharge), return_exceptions=True)


async def _in_child_of_child(context: TaskContext, shop: Shop) -> None:
    async def pay() -> None:
        await context.astep("charge", shop.acharge)

    async def safely() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(pay())
        except* StepFailedError:
            await context.astep("note", shop.note, "note")

    await asyncio.gather(safely())


@pytest.mark.parametrize("catch", [_in_helper, _gathered, _in_child_of_child])
@pytest.mark.parametrize("then", ["step", "steps in gather", "sleep", "receive", "call"])
async def test_a_failure_is_stored_before_the_next_step_or_wait_of_the_code_that_got_it(
    app: TaskQ,
    start: Runner,
    redis_server: RedisServer,
    catch: Callable[[TaskContext, Shop], Awaitable[None]],
    then: str,
) -> None:
    shop, stored_before = Shop(failures=99), []

    def is_stored() -> bool:
        return bool(redis_server.client.hexists(f"taskq:{{default}}:steps:{current_task().id}", "s:charge"))

    @app.task
    def part() -> None: ...

    @app.task(retention=60)
    async def order(context: TaskContext) -> None:
        await catch(context, shop)
        match then:
            case "step":
                stored_before.append(await context.astep("look", is_stored))
            case "steps in gather":
                stored_before.extend(await asyncio.gather(*(context.astep(f"look {n}", is_stored) for n in range(2))))
            case "sleep":
                await context.asleep(0.001)
            case "receive":
                await context.areceive("go", default=None, timeout=0)
            case "call":
                await context.acall(part.s())
        assert is_stored()

    await start()
    await (await order.adelay()).aresult(timeout=30)

    assert all(stored_before)
    assert shop.calls.count("charge") == 1


async def test_output_and_a_sibling_that_began_earlier_store_no_failure(
    app: TaskQ, start: Runner, clock: Clock
) -> None:
    shop, has_failed = Shop(), asyncio.Event()

    async def charge() -> str:
        try:
            return shop.charge()
        finally:
            has_failed.set()

    async def sibling(context: TaskContext) -> None:
        await has_failed.wait()
        for number in range(3):
            await context.astep(f"other {number}", shop.note, "other")

    @app.task(retention=60, retry_delay=1)
    async def order(context: TaskContext) -> str:
        try:
            result, _ = await asyncio.gather(context.astep("charge", charge), sibling(context))
        except StepFailedError:
            await context.aemit("declined")
            raise
        return str(result)

    await start()
    handle = await order.adelay()
    await has_state(handle, TaskState.RETRY)
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == "paid"
    assert shop.calls.count("charge") == 2


async def test_control_exceptions_of_a_step_pass_through_unchanged(app: TaskQ, start: Runner, clock: Clock) -> None:
    calls = []

    def busy() -> str:
        calls.append("busy")
        if len(calls) == 1:
            raise Retry(after=1)
        return "done"

    @app.task(retention=60)
    async def work(context: TaskContext) -> str:
        return await context.astep("busy", busy)

    await start()
    handle = await work.adelay()
    await has_state(handle, TaskState.RETRY)
    await clock.advance(5)

    assert await handle.aresult(timeout=30) == "done"


async def test_the_log_names_a_class_that_the_code_expects_but_no_longer_gets(
    app: TaskQ, start: Runner, caplog: pytest.LogCaptureFixture
) -> None:
    @app.task(max_retry=0, retention=60)
    async def order(context: TaskContext) -> None:
        try:
            await context.astep("charge", Shop().acharge)
        except CardDeclined:
            return

    await start()
    handle = await order.adelay()
    await has_state(handle, TaskState.ARCHIVED)

    [warning] = [each.message for each in caplog.records if "step_errors" in each.message]
    assert warning.startswith("step 'charge' raised CardDeclined, which the function test_the_log_names")
    assert "declare step_errors=(CardDeclined,) in the options of the task" in warning


async def test_failures_are_counted_for_each_step(app: TaskQ, start: Runner, clock: Clock) -> None:
    delays: list[int] = []
    calls: list[str] = []

    def delay(retried: int, error: BaseException) -> float:
        delays.append(retried)
        return 1

    def fail_twice(name: str) -> None:
        calls.append(name)
        if calls.count(name) <= 2:
            raise ValueError(name)

    @app.task(retention=60, max_retry=2, retry_delay=delay)
    async def work(context: TaskContext) -> int:
        for name in "abcd":
            await context.astep(name, fail_twice, name)
        return context.retried

    await start()
    handle = await work.adelay()
    for _ in range(8):
        await has_state(handle, TaskState.RETRY)
        await clock.advance(2)

    assert await handle.aresult(timeout=30) == 0
    assert delays == [0, 1] * 4


async def test_a_step_that_failed_too_often_archives_the_task(app: TaskQ, start: Runner, clock: Clock) -> None:
    shop = Shop(failures=99)

    @app.task(max_retry=2, retry_delay=1)
    async def work(context: TaskContext) -> None:
        await context.astep("charge", shop.acharge)

    await start()
    handle = await work.adelay()
    for _ in range(2):
        await has_state(handle, TaskState.RETRY)
        await clock.advance(2)
    await has_state(handle, TaskState.ARCHIVED)

    assert shop.calls == ["charge"] * 3


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
async def test_a_policy_repeats_a_step_and_the_code_sees_the_last_failure(
    app: TaskQ, start: Runner, clock: Clock, kind: str
) -> None:
    """The first delay is waited within the run. The second one ends the run."""
    shop, caught, runs = Shop(failures=99), [], []
    policy: Any = {"max_retry": 2, "retry_delay": [0, 600]}

    @app.task(retention=60)
    def plain(context: TaskContext) -> None:
        runs.append("run")
        try:
            context.using(**policy).step("charge", shop.charge)
        except StepFailedError as error:
            caught.append(error)

    @app.task(retention=60)
    async def coroutine(context: TaskContext) -> None:
        runs.append("run")
        try:
            await context.using(**policy).astep("charge", shop.acharge)
        except StepFailedError as error:
            caught.append(error)

    await start()
    handle = await (plain if kind == "plain" else coroutine).adelay()
    await has_state(handle, TaskState.SCHEDULED)
    assert (shop.calls, runs, caught) == (["charge"] * 2, ["run"], [])
    wait = handle.refresh().wait
    assert wait is not None
    assert (wait.kind, wait.name) == ("step", "charge")
    await clock.advance(601)
    await handle.aresult(timeout=30)

    assert (shop.calls, runs, len(caught)) == (["charge"] * 3, ["run"] * 2, 1)


async def test_a_failure_after_the_last_attempt_of_a_policy_archives_the_task(app: TaskQ, start: Runner) -> None:
    shop = Shop(failures=99)

    @app.task
    async def work(context: TaskContext) -> None:
        await context.using(max_retry=5, retry_delay=0, no_retry_on=CardDeclined).astep("charge", shop.acharge)

    await start()
    await has_state(await work.adelay(), TaskState.ARCHIVED)
    assert shop.calls == ["charge"]


async def test_an_attempt_of_a_step_has_a_timeout(app: TaskQ, start: Runner) -> None:
    caught: list[str] = []

    @app.task(retention=60)
    async def work(context: TaskContext) -> None:
        try:
            await context.using(timeout=0.01).astep("hang", asyncio.Event().wait)
        except StepFailedError as error:
            caught.append(error.error_type)
        for call in (
            lambda: context.using(timeout=1).step("plain", int),
            lambda: context.using(timeout=timedelta(0)),
            lambda: context.using(retries=3),  # type: ignore[call-arg]
        ):
            with pytest.raises((StepError, ConfigurationError)) as refused:
                call()
            caught.append(str(refused.value))

    await start()
    await (await work.adelay()).aresult(timeout=30)

    assert caught[0] == "TimeoutError"
    assert caught[1] == "the timeout of a step needs `astep` and a coroutine function"
    assert caught[2].startswith("timeout must be more than 0")
    assert caught[3].startswith("unknown option of a step 'retries'")


async def test_failed_sub_tasks_archive_the_task_at_once_and_the_text_names_at_most_20(
    app: TaskQ, start: Runner
) -> None:
    @app.task(max_retry=0)
    def part(number: int) -> None:
        raise ValueError(f"part {number} is broken")

    @app.task
    async def whole(context: TaskContext) -> None:
        await context.acall(*(part.s(number) for number in range(23)))

    await start()
    handle = await whole.adelay()
    await has_state(handle, TaskState.ARCHIVED)

    error = handle.refresh().last_error or ""
    assert WorkflowFailedError.__name__ in error
    assert error.count("is broken") == 20
    assert error.endswith("and 3 more")


def test_a_captured_task_catches_and_repeats_steps_as_in_a_worker(app: TaskQ) -> None:
    shop = Shop(failures=2)

    @app.task(retention=60, step_errors=CardDeclined)
    async def order(context: TaskContext) -> str:
        try:
            await asyncio.gather(context.astep("charge", shop.acharge))
        except CardDeclined as error:
            await context.asleep(60)
            return f"{error.code}, {await context.using(max_retry=1, retry_delay=60).astep('again', shop.charge)}"
        return "paid"

    with capture(app) as tasks:
        handle = order.delay()
        tasks.run(advance=600)
        assert handle.result() == "no money, paid"
    assert shop.calls == ["charge"] * 3


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (7, "step_errors must be an exception class"),
        (KeyboardInterrupt, "step_errors takes classes of errors, got KeyboardInterrupt"),
        (Retry, "step_errors takes classes of errors, got Retry"),
        ((ValueError, type("ValueError", (Exception,), {})), "step_errors has two classes of one name"),
    ],
)
def test_other_values_of_step_errors_are_refused(app: TaskQ, value: Any, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        app.task(name="work", step_errors=value)(lambda: None)
