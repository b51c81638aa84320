"""A decorator that runs one test for all rows of a table.

`@rows` has the arguments of `pytest.mark.parametrize`, but makes one test instead of a test for each row, so that a
table of a hundred rows needs one set-up. The traceback names the row that failed. Servers and stores are emptied before
each row. Other fixtures are shared by all rows, so a test that changes them needs `parametrize`.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytest

Test = Callable[..., Any]


def rows(
    names: str | tuple[str, ...],
    values: Iterable[Any],
    *,
    ids: Iterable[object] | Callable[[Any], object] | None = None,
) -> Callable[[Test], Test]:
    """Call a test once for each row, in one test.

    Args:
        names: Names of the parameters, as for `pytest.mark.parametrize`.
        values: The rows.
        ids: A name for each row, or a function that returns the name of a value. By default the values are shown.
    """
    parameters = [each.strip() for each in names.split(",")] if isinstance(names, str) else list(names)
    table = list(_named(parameters, list(values), ids))
    assert table, "the table has no rows, so the test would check nothing"

    def decorate(test: Test) -> Test:
        signature = inspect.signature(test)
        assert set(parameters) <= signature.parameters.keys(), f"{test.__name__} does not take all of {parameters}"

        if inspect.iscoroutinefunction(test):

            @functools.wraps(test)
            async def all_rows(*args: Any, **fixtures: Any) -> None:
                for number, (name, row) in enumerate(table):
                    with _row(number, name, fixtures):
                        await test(*args, **row, **fixtures)
        else:

            @functools.wraps(test)
            def all_rows(*args: Any, **fixtures: Any) -> None:
                for number, (name, row) in enumerate(table):
                    with _row(number, name, fixtures):
                        test(*args, **row, **fixtures)

        left = [each for name, each in signature.parameters.items() if name not in parameters]
        all_rows.__signature__ = signature.replace(parameters=left)  # type: ignore[attr-defined]  # pytest reads it
        return all_rows

    return decorate


def _named(parameters: list[str], values: list[Any], ids: Any) -> Iterator[tuple[str, Mapping[str, Any]]]:
    names = list(ids) if ids is not None and not callable(ids) else []
    for number, value in enumerate(values):
        name = names[number] if names else None
        if hasattr(value, "marks"):  # created by `pytest.param`
            assert not value.marks, "a row cannot have marks; use pytest.mark.parametrize"
            name, row = value.id or name, value.values
        else:
            row = value if len(parameters) > 1 else (value,)
        if callable(ids):
            name = " ".join(str(ids(each)) for each in row)
        assert len(row) == len(parameters), f"row {number} has {len(row)} values for {parameters}"
        given = dict(zip(parameters, row, strict=True))
        yield str(name) if name is not None else repr(given), given


@contextmanager
def _row(number: int, name: str, fixtures: Mapping[str, Any]) -> Iterator[None]:
    for fixture in fixtures.values():
        if hasattr(fixture, "flushall"):
            fixture.flushall()
    try:
        yield
    except pytest.skip.Exception:
        if number == 0:  # the first row decides for all rows, for example if the store does not support the feature
            raise
        raise RuntimeError(
            f"row {name}: a single row cannot be skipped, because all later rows would be skipped as well"
        ) from None
    except BaseException as error:
        error.add_note(f"row: {name[:300]}")
        raise
