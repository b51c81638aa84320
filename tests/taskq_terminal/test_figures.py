"""Figures as a terminal shows them."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskq_core.views import STATES
from taskq_core.wire import TaskState
from taskq_terminal.figures import Palette, bar, per_second, short, shown, shown_lines, sparkline

BEGIN = datetime(2026, 6, 1, 12, tzinfo=UTC)


def test_numbers_are_abbreviated(subtests: pytest.Subtests) -> None:
    for number, text in [
        (0, "0"),
        (999, "999"),
        (99_999, "99,999"),
        (100_000, "100k"),
        (123_456, "123k"),
        (999_499, "999k"),
        (999_500, "1.00M"),
        (1_234_567, "1.23M"),
        (12_345_678, "12.3M"),
        (10**9, "1.00G"),
        (10**15, "1000T"),
    ]:
        with subtests.test(number=number, text=text):
            assert short(number) == text


def test_rates_are_formatted(subtests: pytest.Subtests) -> None:
    for rate, text in [
        (None, "-"),
        (0, "0"),
        (0.01, "0.01"),
        (0.5, "0.5"),
        (12.34, "12.3"),
        (250.4, "250"),
        (4300, "4,300"),
    ]:
        with subtests.test(rate=rate, text=text):
            assert per_second(rate) == text


sizes = st.dictionaries(st.sampled_from(STATES), st.integers(0, 10**7))


@given(sizes, st.integers(0, 10**7), st.integers(0, 60))
def test_a_bar_shows_every_part_and_never_exceeds_its_width(found: Any, largest: int, width: int) -> None:
    cells = bar(found, largest, width)
    there = [state for state, count in found.items() if count]

    assert sum(count for _, count in cells) <= width
    assert [state for state, _ in cells] == there[:width]
    assert all(count >= 1 for _, count in cells)


@given(sizes.filter(lambda found: sum(found.values()) > 0), st.integers(7, 60))
def test_the_largest_queue_fills_its_bar(found: Any, width: int) -> None:
    assert sum(count for _, count in bar(found, sum(found.values()), width)) == width


def test_the_cells_of_a_bar_are_shared_in_proportion() -> None:
    found = {TaskState.ACTIVE: 25, TaskState.PENDING: 50, TaskState.RETRY: 25}

    assert bar(found, 200, 40) == [(TaskState.ACTIVE, 5), (TaskState.PENDING, 10), (TaskState.RETRY, 5)]


def test_a_sparkline_shows_the_latest_value_at_its_right_end() -> None:
    assert sparkline([1, 0, 7, 3.5, None, 7], 4) == "█▅ █"
    assert sparkline([0, 0], 4) == "  ▁▁"
    assert sparkline([], 3) == "   "
    assert sparkline([5, 5], 0) == ""


def test_small_values_are_visible_next_to_large_ones() -> None:
    assert sparkline([0, 0.001, 1000], 3) == "▁▂█"


def test_control_characters_in_foreign_text_are_removed() -> None:
    assert str(shown("[red]x[/red] \x1b[31m\x07 \u202e")) == "[red]x[/red] \\x1b[31m\\x07 \\u202e"
    assert shown("[red]x[/red]").spans == []
    assert str(shown_lines("a\tb\r\n\x1b[2Jc")) == "a   b\n\\x1b[2Jc"


def test_every_state_has_a_color(subtests: pytest.Subtests) -> None:
    for is_dark in (True, False):
        with subtests.test(is_dark=is_dark):
            palette = Palette(is_dark=is_dark)
            assert all(palette.of(state.value) for state in TaskState)
            assert palette.of("paused") == palette["warn"]
            assert palette.of("whatever") == palette.of("back") == ""
