"""Coroutines from blocking code, and the other way round."""

import asyncio
import threading
from contextvars import ContextVar

import pytest

from taskq_core.service.bridge import Bridge

word: ContextVar[str] = ContextVar("word", default="unset")


async def seen() -> tuple[str, int]:
    await asyncio.sleep(0)
    return word.get(), threading.get_ident()


def test_blocking_code_runs_a_coroutine_in_its_thread() -> None:
    word.set("here")

    assert Bridge().run(seen()) == ("here", threading.get_ident())


async def test_blocking_code_below_a_coroutine_uses_another_thread() -> None:
    """The running loop is blocked, so the coroutine cannot run on it; context variables go along."""
    word.set("there")

    text, thread = Bridge().run(seen())

    assert text == "there"
    assert thread != threading.get_ident()


async def test_exceptions_of_the_coroutine_are_raised() -> None:
    async def fail() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        Bridge().run(fail())


async def test_a_coroutine_runs_blocking_code_in_a_thread() -> None:
    word.set("there")

    text, thread = await Bridge().arun(lambda: (word.get(), threading.get_ident()))

    assert text == "there"
    assert thread != threading.get_ident()
