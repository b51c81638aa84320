"""Hooks and providers are called in the way that they need, and raise nothing that would end a service."""

import asyncio
import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest

from taskq_core.scheduler.calls import call


async def answer(value: object) -> object:
    return value


class AsyncObject:
    async def __call__(self, value: object) -> object:
        return value


@pytest.mark.parametrize(
    "function",
    [answer, functools.partial(answer), AsyncObject(), lambda value: answer(value), lambda value: value],
    ids=["coroutine", "partial", "object", "returns awaitable", "plain"],
)
async def test_what_it_returns_is_awaited_if_need_be(function: Callable[..., Any]) -> None:
    assert await call(function, 5) == 5


async def test_a_plain_function_runs_in_a_thread() -> None:
    assert await call(threading.get_ident) != threading.get_ident()


@pytest.mark.parametrize("raised", [StopIteration, SystemExit, KeyboardInterrupt, asyncio.CancelledError])
@pytest.mark.parametrize("is_coroutine", [True, False])
async def test_what_would_end_its_caller_arrives_as_an_exception(
    raised: type[BaseException], is_coroutine: bool
) -> None:
    def fail() -> None:
        raise raised

    async def afail() -> None:
        fail()

    with pytest.raises(RuntimeError, match=raised.__name__):
        await asyncio.wait_for(call(afail if is_coroutine else fail), 20)


async def test_an_exception_arrives_as_it_is() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        await call(int, "five")


async def test_its_caller_can_be_cancelled() -> None:
    waiting = asyncio.create_task(call(asyncio.Event().wait))
    await asyncio.sleep(0)
    waiting.cancel()

    with pytest.raises(asyncio.CancelledError):
        await waiting
