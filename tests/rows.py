"""A table of cases that one test walks through.

`@rows` takes what `pytest.mark.parametrize` takes. It makes one test instead of one for each row, so that a table of a
hundred names costs one set-up. A row that fails is named below its traceback. Servers and stores are emptied before
each row; other fixtures are made once and shared, so a test that leaves something in them needs `parametrize`.
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
        names: The parameters that a row gives, as for `pytest.mark.parametrize`.
        values: The rows.
        ids: A name for each row, or a function that names a value. A row without a name is shown unchanged.
    """
    parameters = [each.strip() for each in names.split(",")] if isinstance(names, str) else list(names)
    table = list(_named(parameters, list(values), ids))
    assert table, "a table without rows shows nothing"

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
        if hasattr(value, "marks"):  # what `pytest.param` makes
            assert not value.marks, "a row cannot be marked"
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
        if number == 0:  # as the others will be: it depends on the store, say
            raise
        raise RuntimeError(f"row {name}: a row cannot be skipped, it would skip all that follow") from None
    except BaseException as error:
        error.add_note(f"row: {name[:300]}")
        raise
