"""Test the records of a task's attempts: one line of JSON for each."""

import json
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.services import ExpiredTask
from taskq_core.handles import attempts
from taskq_core.handles.attempts import LONGEST, read_attempts, record_attempt, traceback_text
from taskq_core.wire import build_message
from taskq_core.worker.recoverer import decide
from tests.rows import rows


class ShopError(Exception):
    """An exception class of a user's code."""


def caught(raising: Any) -> BaseException:
    try:
        raising()
    except BaseException as error:
        return error
    raise AssertionError("it raised nothing")


def test_a_record_is_read_back() -> None:
    noted = record_attempt(3, worker="w1", started_s=1.5, ended_s=2.25, error=ShopError("sold out"))

    (attempt,) = read_attempts(noted)

    assert b"\n" not in noted
    assert (attempt.number, attempt.worker) == (3, "w1")
    assert attempt.error == f"{__name__}.ShopError"
    assert attempt.traceback.endswith("ShopError: sold out\n")
    assert attempt.started_at == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
    assert attempt.ended_at == datetime(1970, 1, 1, 0, 0, 2, 250_000, tzinfo=UTC)
    assert "sold out" not in repr(attempt), "what an exception says may hold arguments"


@rows(
    "line",
    [b"nonsense", b"\xff", b"[]", b"{}", b'{"attempt":"x","worker":""}', b'{"attempt":1,"worker":"","ended":1e30}'],
)
def test_a_damaged_record_is_skipped(line: bytes) -> None:
    whole = record_attempt(2, worker="", started_s=None, ended_s=1.0)

    (attempt,) = read_attempts(line + b"\n" + whole)

    assert (attempt.number, attempt.error, attempt.started_at) == (2, "", None)


def test_the_size_of_a_record_does_not_depend_on_the_language() -> None:
    """Lone surrogates survive the round trip."""
    noted = record_attempt(1, worker="w", started_s=None, ended_s=1.0, error=ShopError("\u0436" * 9000 + "\udc80"))

    (attempt,) = read_attempts(noted)

    assert len(noted) < LONGEST + 500
    assert attempt.traceback.startswith("ShopError") or ".ShopError: \u0436" in attempt.traceback
    assert record_attempt(1, worker="w", started_s=None, ended_s=1.0, error=ShopError("\udc80")).isascii()


def test_a_traceback_names_its_own_file() -> None:
    """The name of another file with the same lines is not used."""
    texts = []
    for name in ("/srv/first/tasks.py", "/srv/second/tasks.py"):
        names: dict[str, Any] = {"__name__": "tasks"}
        exec(compile("def failing():\n    raise ValueError('no')\n", name, "exec"), names)
        texts.append(traceback_text(caught(names["failing"])))

    assert ["/srv/first/tasks.py" in texts[0], "/srv/second/tasks.py" in texts[1]] == [True, True]


def test_a_traceback_includes_the_causes() -> None:
    def failing() -> None:
        try:
            raise KeyError("inner")
        except KeyError as error:
            raise ShopError("outer") from error

    text = traceback_text(caught(failing))

    assert "KeyError: 'inner'" in text
    assert "direct cause" in text
    assert text.endswith("ShopError: outer\n")


def deep(levels: int) -> None:
    if levels:
        deep(levels - 1)
    raise ShopError("the bottom")


def noted() -> None:
    error = ShopError("outer")
    error.add_note("and a note")
    raise error


def chained() -> None:
    try:
        deep(0)
    except ShopError:
        raise KeyError("while handling")  # noqa: B904 - the context is what is shown


def suppressed() -> None:
    try:
        deep(0)
    except ShopError:
        raise KeyError("instead") from None


def grouped() -> None:
    raise ExceptionGroup("several", [ShopError("one"), ShopError("two")])


@rows(
    "raising",
    [lambda: deep(3), lambda: deep(50), noted, chained, suppressed, grouped, lambda: compile("(", "x", "exec")],
)
def test_a_traceback_equals_the_one_that_python_prints(raising: Any) -> None:
    """This holds for a repeated stack, and for another line of the same function."""
    for _ in range(2):
        error = caught(raising)
        assert traceback_text(error) == "".join(traceback.format_exception(error))


def test_the_cache_of_stacks_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "_MOST_STACKS", 3)
    for levels in range(10):
        traceback_text(caught(lambda levels=levels: deep(levels)))

    assert len(attempts._stacks) <= 3


def test_a_long_traceback_is_cut_in_the_middle() -> None:
    text = traceback_text(ShopError("a" * 50_000 + " the end"))

    assert len(text) < LONGEST + 100
    assert text.startswith(f"{__name__}.ShopError: aaa")
    assert text.endswith(" the end\n")
    assert "bytes are left out" in text


def test_an_exception_whose_text_raises_is_recorded() -> None:
    class BrokenError(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no words")

        @property
        def __notes__(self) -> list[str]:  # type: ignore[override]  # as broken as it gets
            raise RuntimeError("no notes either")

    (attempt,) = read_attempts(record_attempt(1, worker="", started_s=None, ended_s=0.0, error=BrokenError()))

    assert attempt.error.endswith("BrokenError")
    assert attempt.traceback


def test_a_lost_lease_is_recorded_with_the_worker_that_held_it() -> None:
    app = TaskQ("redis://localhost")
    message = build_message(type="t", payload=b"{}", id="x", queue="default", retry=3, retried=1)
    lost = ExpiredTask("x", "100", message.SerializeToString(), owner="w1", started_s=50.0)

    (attempt,) = read_attempts(decide(app, app.runtime.keys.queue("default"), lost, 200, lambda message: False).record)

    assert (attempt.number, attempt.worker, attempt.error) == (2, "w1", "taskq_core.errors.LeaseLostError")
    assert attempt.started_at == datetime(1970, 1, 1, 0, 0, 50, tzinfo=UTC)


def test_a_record_is_compact() -> None:
    """Redis stores a record for each kept task, so a successful attempt takes less than 100 bytes."""
    noted = record_attempt(1, worker="0123456789abcdef", started_s=1.8e9, ended_s=1.8e9)

    assert len(noted) < 100
    assert json.loads(noted)["attempt"] == 1
