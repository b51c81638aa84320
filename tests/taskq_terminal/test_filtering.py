"""Test the text typed into the filter of tasks."""

from datetime import timedelta
from typing import Any

import pytest

from taskq_core.errors import ConfigurationError
from taskq_core.views import TaskFilter
from taskq_core.wire import TaskState
from taskq_terminal.filtering import duration_of, wanted_of


def wanted(text: str, **more: Any) -> TaskFilter:
    return wanted_of(text, **{"queue": None, "state": None, "in_payload": True, **more})


def test_a_filter_text_is_parsed(subtests: pytest.Subtests) -> None:
    for text, found in [
        ("", TaskFilter()),
        ("  order-7 ", TaskFilter(text="order-7")),
        ("no such order", TaskFilter(text="no such order")),
        ("type:mail", TaskFilter(name_part="mail")),
        ('error:"timed out" payload:42 x', TaskFilter(error="timed out", payload="42", text="x")),
        ("older:1h newer:30m", TaskFilter(older_than=timedelta(hours=1), newer_than=timedelta(minutes=30))),
        ("mail:send", TaskFilter(text="mail:send")),
        ("http://a", TaskFilter(text="http://a")),
    ]:
        with subtests.test(text=text, found=found):
            assert wanted(text) == found


def test_a_filter_is_combined_with_queue_and_state() -> None:
    assert wanted("x", queue="mail", state=TaskState.RETRY) == TaskFilter(queue="mail", state=TaskState.RETRY, text="x")


def test_an_invalid_filter_is_refused_with_the_reason(subtests: pytest.Subtests) -> None:
    for text, complaint in [
        ('error:"timed out', "the filter cannot be read: No closing quotation"),
        ("eror:x", "a filter has no 'eror'; did you mean 'error'?"),
        ("error:", "error needs a value, as in error:text"),
        ("older:soon", "'soon' is not a duration; use for example 90s, 1h30m or a number of seconds"),
    ]:
        with subtests.test(text=text, complaint=complaint):
            with pytest.raises(ConfigurationError) as caught:
                wanted(text)

            assert str(caught.value) == complaint


def test_hidden_payloads_are_not_searched() -> None:
    assert wanted("42", in_payload=False) == TaskFilter(text="42", in_payload=False)
    with pytest.raises(ConfigurationError, match="hidden payloads cannot be searched"):
        wanted("payload:42", in_payload=False)


def test_typed_durations_are_parsed() -> None:
    assert duration_of(" 90s ") == timedelta(seconds=90)
    with pytest.raises(ConfigurationError, match="negative"):
        duration_of("-5s")
