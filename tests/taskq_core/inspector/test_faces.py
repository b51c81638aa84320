"""The two inspectors are one."""

import inspect

import pytest

from taskq_core.inspector import AsyncInspector, Inspector

METHODS = [name for name, _ in inspect.getmembers(Inspector, inspect.isfunction) if not name.startswith("_")]


def test_both_have_the_same_methods() -> None:
    others = [name for name, _ in inspect.getmembers(AsyncInspector, inspect.isfunction) if not name.startswith("_")]

    assert others == METHODS


@pytest.mark.parametrize("name", METHODS)
def test_a_method_takes_and_returns_the_same(name: str) -> None:
    blocking, coroutine = getattr(Inspector, name), getattr(AsyncInspector, name)

    assert inspect.signature(blocking) == inspect.signature(coroutine)
    assert inspect.iscoroutinefunction(coroutine)
    assert not inspect.iscoroutinefunction(blocking)
