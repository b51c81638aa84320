"""Test small parts of the dashboard: formatted values, bars, pages of a list, links, one-time messages."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from taskq_core.views import bars
from taskq_core.wire import TaskState
from taskq_dashboard import flash, preferences
from taskq_dashboard import labels as wording
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form, parsed
from taskq_dashboard.paging import paging
from taskq_dashboard.view import link, own_link
from tests.rows import rows


@rows(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (1024**2, "1.0 MiB"),
        (5 * 1024**3, "5.0 GiB"),
        (1024**6, "1048576.0 TiB"),
    ],
)
def test_sizes_are_formatted(value: int | None, text: str) -> None:
    assert wording.size(value) == text


@rows(
    ("seconds", "text"),
    [
        (0, "0.0 s"),
        (9.94, "9.9 s"),
        (10, "10 s"),
        (61, "1 min 1 s"),
        (3660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (-5, "-5.0 s"),
    ],
)
def test_durations_are_formatted(seconds: float, text: str) -> None:
    assert wording.span(timedelta(seconds=seconds)) == text


def test_times_are_formatted_in_utc() -> None:
    berlin = timezone(timedelta(hours=2))
    assert wording.moment(datetime(2026, 6, 1, 14, 5, 9, tzinfo=berlin)) == "2026-06-01 12:05:09"
    assert wording.moment(None) == "-"
    assert wording.moment(datetime.max.replace(tzinfo=UTC)) == "9999-12-31 23:59:59"


@rows(("rate", "text"), [(None, "-"), (0.0, "0.0 %"), (0.0149, "1.5 %"), (1.0, "100.0 %")])
def test_percentages_are_formatted(rate: float | None, text: str) -> None:
    assert wording.percent(rate) == text


def test_a_bar_shows_every_part_and_never_exceeds_its_width() -> None:
    sizes = {TaskState.ACTIVE: 1, TaskState.PENDING: 1_000_000, TaskState.RETRY: 0, TaskState.ARCHIVED: 1}
    parts = bars(sizes, 1_000_002)

    assert [part.state for part in parts] == [TaskState.ACTIVE, TaskState.PENDING, TaskState.ARCHIVED]
    assert min(part.width for part in parts) > 5
    assert sum(part.width for part in parts) == pytest.approx(1000, abs=0.1)
    assert bars(dict.fromkeys(sizes, 0), 0) == ()
    assert sum(part.width for part in bars({TaskState.ACTIVE: 10}, 100)) == pytest.approx(100)


@rows(
    ("page", "total", "first", "last", "pages"),
    [(1, 0, 0, 0, 1), (1, 20, 1, 20, 1), (2, 21, 21, 21, 2), (9, 21, 0, 0, 2)],
)
def test_lists_are_split_into_pages(page: int, total: int, first: int, last: int, pages: int) -> None:
    found = paging(Form([("page", str(page))]), total, rows=20)

    assert (found.first_row, found.last_row, found.last) == (first, last, pages)


@rows("query", ["page=0", "page=-1", "page=x", "rows=0", "rows=101", "page=1000000001"])
def test_invalid_page_numbers_are_refused(query: str) -> None:
    with pytest.raises(BadRequestError):
        paging(parsed(query), 10, rows=20)


@rows("text", ["done", "“ü” 💥" * 10, "x" * 100_000, "💥" * 2000, "\ud800", "", "<b>\r\n;\x00"])
def test_a_message_is_stored_in_a_cookie_for_one_page(text: str) -> None:
    cookie = flash.packed("error", text)
    found = flash.unpacked(cookie)

    assert len(cookie) <= 3800
    assert cookie.isascii()
    assert found is not None
    assert found[0] == "error"
    assert text.encode("utf-8", "replace").decode().startswith(found[1].removesuffix("…"))


@rows("cookie", ["", "x", "bm8=", "W10=", "ü", "WyJldmlsIiwgIngiXQ==", "[" * 4000])
def test_invalid_message_cookies_are_ignored(cookie: str) -> None:
    assert flash.unpacked(cookie) is None


@rows("cookie", ["", "theme=x", "interval=3", "rows=a", "%ff", "theme=dark&rows=1000"])
def test_invalid_settings_cookies_are_ignored(cookie: str) -> None:
    assert preferences.stored(cookie) == preferences.Preferences()


def test_settings_are_restored_from_their_cookie() -> None:
    chosen = preferences.Preferences(theme="dark", interval=20, rows=100)
    assert preferences.stored(chosen.cookie) == chosen


def test_links_are_relative_and_encode_any_text() -> None:
    assert link("") == "./"
    assert link("", page=2) == "./?page=2"
    assert link("queue", name="a/b?&=# ü\r\n:", state=None) == "queue?name=a%2Fb%3F%26%3D%23+%C3%BC%0D%0A%3A"
    assert own_link(link("queue", name="https://evil.example/\\")) is not None


@rows(
    "text",
    ["//a", "/a", "\\a", "https://a", "a:b", "../a", "a/b", "a\r\nb", "?a b", "?ü", "./../", "//"],
)
def test_links_to_other_sites_are_rejected(text: str) -> None:
    assert own_link(text) is None
