"""Hooks and providers are called in the way that they need, and raise nothing that would end a service."""

import asyncio
import contextvars
import functools
import threading
from collections.abc import Iterator

import pytest

from taskq_core.service import calls
from taskq_core.service.calls import Caller, HangError
from tests.clock import Clock

PATIENCE_S = 60.0


@pytest.fixture
def call() -> Iterator[Caller]:
    caller = Caller(2, name="a hook")
    yield caller
    caller.close()


async def answer(value: object) -> object:
    return value


class AsyncObject:
    async def __call__(self, value: object) -> object:
        return value


async def test_an_awaitable_result_is_awaited(call: Caller, subtests: pytest.Subtests) -> None:
    for function in [
        answer,
        functools.partial(answer),
        AsyncObject(),
        lambda value: answer(value),
        lambda value: value,
    ]:
        with subtests.test(function=function):
            assert await call(function, 5) == 5


async def test_a_plain_function_runs_in_a_reused_thread(call: Caller) -> None:
    first, second = await call(threading.get_ident), await call(threading.get_ident)

    assert first == second != threading.get_ident()


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_a_system_exit_becomes_an_exception_of_the_caller(
    call: Caller, raised: type[BaseException], is_coroutine: bool
) -> None:
    def fail() -> None:
        raise raised

    async def afail() -> None:
        fail()

    with pytest.raises(RuntimeError, match=raised.__name__):
        await asyncio.wait_for(call(afail if is_coroutine else fail), PATIENCE_S)


async def test_an_exception_is_passed_on_unchanged(call: Caller) -> None:
    def fail() -> None:
        raise TimeoutError("its own")

    with pytest.raises(ValueError, match="invalid literal"):
        await call(int, "five")
    with pytest.raises(TimeoutError, match="its own") as raised:
        await call(fail, timeout_s=PATIENCE_S)
    assert not isinstance(raised.value, HangError)


async def test_the_caller_can_be_cancelled(call: Caller) -> None:
    waiting = asyncio.create_task(call(asyncio.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting


async def test_a_thread_without_an_interruption_keeps_its_state(call: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before Python 3.13, the whole process is slower after that, and hangs under a profiler."""
    cleared: list[int] = []
    monkeypatch.setattr(calls, "clear_in_thread", cleared.append)

    assert await call(lambda: "plain") == "plain"
    assert cleared == []


async def test_the_function_sees_context_variables_of_the_caller(call: Caller) -> None:
    variable = contextvars.ContextVar("variable", default="")
    variable.set("the caller's")

    assert await call(variable.get) == "the caller's"


async def test_a_failed_start_of_a_thread_is_raised_and_leaks_no_slot(
    call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for _ in range(5):  # more than there are places
            with pytest.raises(RuntimeError, match="can't start new thread"):
                await call(int, timeout_s=PATIENCE_S)

    assert await call(int, timeout_s=PATIENCE_S) == 0


class TestHanging:
    async def test_a_hanging_call_is_abandoned_and_others_use_other_threads(self, call: Caller, clock: Clock) -> None:
        """Other threads are used while some are free. After that, calls fail at once until a hanging call ends."""
        end = threading.Event()

        for _ in range(2):
            hanging = asyncio.create_task(call(end.wait, timeout_s=5))
            await clock.advance(6)
            with pytest.raises(HangError, match=r"a hook did not end within 5 s"):
                await hanging
        with pytest.raises(HangError, match="2 earlier calls of a hook hang"):
            await call(int, timeout_s=PATIENCE_S)
        end.set()

        async with asyncio.timeout(PATIENCE_S):
            while True:
                try:
                    assert await call(int) == 0
                    break
                except HangError:
                    await asyncio.sleep(0)

    async def test_a_coroutine_over_its_time_is_cancelled(self, call: Caller, clock: Clock) -> None:
        ended: list[str] = []

        async def hang() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append("cancelled")

        hanging = asyncio.create_task(call(hang, timeout_s=5))
        await clock.advance(6)

        with pytest.raises(HangError):
            await hanging
        assert ended == ["cancelled"]

    async def test_a_hanging_call_takes_no_thread_from_other_callers(self) -> None:
        """The event loop's few dozen threads are for tasks and host name lookups."""
        end = threading.Event()
        caller = Caller(64, name="a hook")
        calls = [asyncio.create_task(caller(end.wait)) for _ in range(64)]
        try:
            async with asyncio.timeout(PATIENCE_S):
                await asyncio.sleep(0)
                assert await asyncio.to_thread(int) == 0
        finally:
            end.set()
        assert await asyncio.gather(*calls) == [True] * 64
        caller.close()
