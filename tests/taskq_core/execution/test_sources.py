"""Test the sources that a task can iterate over: each yields every item once, from any cursor."""

import csv
import io
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from taskq_core import IterationError, csv_rows
from taskq_core.execution.sources import Source, abatches, batches, source_of
from tests.rows import rows


def assert_goes_on_anywhere(source: Source, items: list[Any]) -> None:
    """What comes after each cursor is what came after it at first."""
    pairs = list(source.pairs(None))

    assert [item for item, _ in pairs] == items
    for index, (_, cursor) in enumerate(pairs):
        assert [item for item, _ in source.pairs(cursor)] == items[index + 1 :], f"after item {index}"


@rows("items", [[], ["a", "b", "c"], ("a",), range(5, 50, 7)], ids=repr)
def test_a_sequence_resumes_anywhere_and_has_a_size(items: Any) -> None:
    source = source_of(items)

    assert_goes_on_anywhere(source, list(items))
    assert source.total == len(items)


def test_a_shortened_sequence_is_at_its_end() -> None:
    assert list(source_of([1, 2]).pairs(5)) == []


@pytest.mark.parametrize(
    ("data", "mode"),
    [("one\ntwo\r\n\nfür — €\nlast", "text"), ("one\ntwo\n", "bytes"), ("", "text")],
)
def test_a_file_resumes_at_its_line(tmp_path: Path, data: str, mode: str) -> None:
    path = tmp_path / "lines"
    path.write_bytes(data.encode())
    with path.open("rb") if mode == "bytes" else path.open(encoding="utf-8", newline="") as file:
        lines = file.readlines()
        file.seek(0)
        assert_goes_on_anywhere(source_of(file), list(lines))


@pytest.mark.parametrize("header", [True, False])
def test_csv_rows_resume_anywhere_even_with_line_breaks_in_a_field(header: bool) -> None:
    text = 'id,text\r\n1,"a\r\nb"\r\n\r\n2,"c ""d"" €"\r\n3,\r\n'
    file = io.StringIO(text, newline="")
    expected: list[Any] = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    if header:
        expected = list(csv.DictReader(io.StringIO(text, newline="")))

    assert_goes_on_anywhere(csv_rows(file, header=header), expected)


def test_options_of_csv_are_passed_on() -> None:
    rows = csv_rows(io.StringIO("a;b\n1;2\n"), delimiter=";")

    assert [row for row, _ in rows.pairs(None)] == [{"a": "1", "b": "2"}]


def test_an_unseekable_file_is_refused() -> None:
    reading, writing = os.pipe()
    with open(reading) as file, open(writing, "w"):
        with pytest.raises(IterationError, match="this TextIOWrapper cannot"):
            source_of(file)
        with pytest.raises(IterationError, match="a file that can seek"):
            csv_rows(file)


EVENTS = [{"id": number, "what": f"event {number}"} for number in (3, 5, 8, 13)]


def events_after(cursor: int | None) -> Iterator[dict[str, Any]]:
    return iter([each for each in EVENTS if cursor is None or each["id"] > cursor])


async def asynchronous_events(cursor: int | None) -> AsyncIterator[dict[str, Any]]:
    for event in events_after(cursor):
        yield event


async def fetched_events(cursor: int | None) -> list[dict[str, Any]]:
    return list(events_after(cursor))


def id_of(event: dict[str, Any]) -> int:
    number: int = event["id"]
    return number


def test_the_iterable_of_a_function_resumes_at_the_cursor_of_an_item() -> None:
    assert_goes_on_anywhere(source_of(events_after, id_of), EVENTS)


@rows("make", [events_after, asynchronous_events, fetched_events])
async def test_an_async_loop_accepts_every_iterable_of_a_function(make: Any) -> None:
    source = source_of(make, id_of)

    assert [pair async for pair in source.apairs(5)] == [(EVENTS[2], 8), (EVENTS[3], 13)]


@pytest.mark.parametrize("make", [asynchronous_events, fetched_events])
def test_an_async_iterable_is_refused_in_a_plain_loop(make: Any) -> None:
    with pytest.raises(IterationError, match="iterate over it with `async for`"):
        list(source_of(make, id_of).pairs(None))


async def test_a_function_that_returns_no_iterable_is_refused() -> None:
    source = source_of(lambda cursor: 5, id_of)

    with pytest.raises(IterationError, match="returned an int; it must return an iterable"):
        list(source.pairs(None))
    with pytest.raises(IterationError, match="returned an int; it must return an iterable"):
        [pair async for pair in source.apairs(None)]


@rows(
    ("items", "said"),
    [
        ({1, 2}, "a set in another run; it has no order; pass sorted"),
        ({"a": 1}, "a dict in another run; pass sorted"),
        ("text", "a str in another run; pass a list of its parts"),
        (b"bytes", "a bytes in another run; pass a list of its parts"),
        ((each for each in "abc"), "a generator in another run; pass a function that creates it from a cursor"),
        (events_after, "a function in another run; also pass cursor="),
        (5, "an int in another run; pass a sequence, an open file"),
        (None, "a NoneType in another run"),
    ],
)
def test_an_iterable_that_cannot_resume_is_refused_with_a_hint(items: object, said: str) -> None:
    with pytest.raises(IterationError, match="iterate\\(\\) cannot continue over " + said):
        source_of(items)


def test_a_cursor_function_without_a_source_function_is_refused() -> None:
    with pytest.raises(IterationError, match=r"needs a function that takes a cursor.*got list"):
        source_of([1], id_of)


@rows("cursor", ["3", -1, 1.5, True, [1]])
@rows("items", [[1, 2], io.StringIO("a\n"), csv_rows(io.StringIO("a\n"))])
def test_a_cursor_of_another_loop_is_refused(items: object, cursor: object) -> None:
    with pytest.raises(IterationError, match=r"the stored cursor of this iteration is an? "):
        list(source_of(items).pairs(cursor))


@rows(("size", "lengths"), [(1, [1] * 5), (2, [2, 2, 1]), (5, [5]), (9, [5])])
async def test_batches_have_the_cursor_of_their_last_item(size: int, lengths: list[int]) -> None:
    source = source_of(["a", "b", "c", "d", "e"])

    plain = list(batches(source.pairs(None), size))
    asynchronous = [pair async for pair in abatches(source.apairs(None), size)]

    assert asynchronous == plain
    assert [len(batch) for batch, _ in plain] == lengths
    assert [item for batch, _ in plain for item in batch] == [item for item, _ in source.pairs(None)]
    assert [cursor for _, cursor in plain] == [sum(lengths[: index + 1]) for index in range(len(lengths))]
