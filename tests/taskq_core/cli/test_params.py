"""Values on the command line."""

from datetime import UTC, datetime, timedelta

import click
import pytest

from taskq_core.cli.params import DURATION, HEADER, MOMENT, StateType
from taskq_core.wire import TaskState


def test_durations_are_parsed(subtests: pytest.Subtests) -> None:
    for text, seconds in [("90s", 90), ("1h30m", 5400), ("1.5h", 5400), ("500ms", 0.5), ("30", 30), ("0.5", 0.5)]:
        with subtests.test(text=text, seconds=seconds):
            assert DURATION.convert(text, None, None) == timedelta(seconds=seconds)


def test_an_invalid_duration_is_refused(subtests: pytest.Subtests) -> None:
    for text in ["", "soon", "-1s", "1d", "1..5", "99999999h"]:
        with subtests.test(text=text), pytest.raises(click.BadParameter):
            DURATION.convert(text, None, None)


def test_times_are_parsed() -> None:
    assert MOMENT.convert("2030-01-31T12:00:00Z", None, None) == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert MOMENT.convert("2030-01-31T12:00:00+02:00", None, None) == datetime(2030, 1, 31, 10, tzinfo=UTC)
    with pytest.raises(click.BadParameter, match="no time zone"):
        MOMENT.convert("2030-01-31T12:00:00", None, None)
    with pytest.raises(click.BadParameter, match="use for example"):
        MOMENT.convert("tomorrow", None, None)


def test_headers_are_parsed() -> None:
    assert HEADER.convert("tenant=a=b", None, None) == ("tenant", "a=b")
    assert HEADER.convert("empty=", None, None) == ("empty", "")
    for text in ("tenant", "=x", ""):
        with pytest.raises(click.BadParameter):
            HEADER.convert(text, None, None)


def test_states_are_parsed() -> None:
    states = StateType([TaskState.RETRY, TaskState.ARCHIVED])

    assert states.convert("retry", None, None) is TaskState.RETRY
    with pytest.raises(click.BadParameter):
        states.convert("pending", None, None)
