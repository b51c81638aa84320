"""When entries fire: as measured on Go Asynq, but for what is listed here; and as looking at every moment shows."""

import json
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskq_core.errors import ConfigurationError
from taskq_core.wire.cron import Bounded, Cron, Every, Schedule, parse_schedule, with_zone
from tests.rows import rows

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parents[2] / "golden" / "cron.json").read_text(encoding="utf-8")
)

_SLIP = "a slip of the pen that Go reads as something"
DIFFERENCES = {
    "* * * * * *": "six fields: the second stands in front, where Go knows no such field",
    "@every 0s": "refused, where Go fires every second",
    "@every -5s": "refused, where Go fires every second",
    "1,,2 * * * *": _SLIP,
    ", * * * *": _SLIP,
    "*-5 * * * *": _SLIP,
    "+5 * * * *": _SLIP,
    "0 0 30 2 *": "refused, where Go never fires",
    "CRON_TZ= 0 0 * * *": "a zone without a name is refused, where Go takes UTC",
}
"""Where we differ on purpose, and why."""

START_S = 2_000_000_000


def unix(moment: str) -> int:
    """Unix second of an ISO time, whose nanoseconds are cut."""
    head, _, tail = moment.partition(".")
    return int(datetime.fromisoformat(head + (tail.lstrip("0123456789") if tail else "")).timestamp())


def fires(spec: str, *, zone: str = "UTC", start_s: int = START_S, count: int = 8) -> list[int]:
    schedule = parse_schedule(spec, zone=zone)
    found: list[int] = []
    moment_s: int | None = start_s
    while len(found) < count:
        assert moment_s is not None
        moment_s = schedule.next_after(moment_s)
        if moment_s is None:
            break
        found.append(moment_s)
    return found


def ids(vector: dict[str, Any]) -> str:
    return f"{vector['spec']!r} {vector['location']} {vector['start']}"


@rows("vector", VECTORS, ids=ids)
def test_firing_times_match_those_recorded_from_go(vector: dict[str, Any]) -> None:
    spec, zone = vector["spec"], vector["location"]
    if spec in DIFFERENCES:
        if spec == "* * * * * *":
            assert not vector["valid"]
            assert fires(spec, count=2) == [START_S + 1, START_S + 2]
        else:
            assert vector["valid"]
            with pytest.raises(ConfigurationError):
                parse_schedule(spec, zone=zone)
    elif vector["valid"]:
        assert fires(spec, zone=zone, start_s=unix(vector["start"])) == [
            unix(each) for each in vector["next_utc"] or ()
        ]
    else:
        with pytest.raises(ConfigurationError):
            parse_schedule(spec, zone=zone)


def test_all_recorded_vectors_exist_and_include_every_listed_difference() -> None:
    assert len(VECTORS) == 165
    assert DIFFERENCES.keys() <= {vector["spec"] for vector in VECTORS}


@rows(
    ("spec", "first"),
    [
        ("*/20 * * * * *", [20, 40, 60]),  # START_S is 20 s after a full minute
        ("15 34 3 * * *", [55, 55 + 86_400, 55 + 2 * 86_400]),
        ("0 * * * * *", [40, 100, 160]),
        ("59 59 23 31 12 *", None),
    ],
)
def test_a_sixth_field_at_the_front_is_the_second(spec: str, first: list[int] | None) -> None:
    found = fires(spec, count=3)

    if first is not None:
        assert [each - START_S for each in found] == first
    assert all(datetime.fromtimestamp(each, UTC).timestamp() == each for each in found)


@rows(
    ("spec", "problem"),
    [
        ("", "a cron line has five fields"),
        ("* * *", "got 3"),
        ("61 * * * *", "minute: '61' is outside 0 to 59"),
        ("* * * * 7", "day of week: '7' is outside 0 to 6"),
        ("*/0 * * * *", "minute: the step of '*/0' must be at least 1"),
        ("9-3 * * * *", "minute: '9-3' begins after its end"),
        ("* * * foo *", "month: 'foo' is not a number"),
        ("60 * * * * *", "second: '60' is outside 0 to 59"),
        ("@hourl", "unknown descriptor; known are @yearly"),
        ("@every 5", "a unit is missing or unknown"),
        ("CRON_TZ=Mars/Olympus @daily", "there is no time zone 'Mars/Olympus'"),
        ("CRON_TZ=../../etc/passwd @daily", "there is no time zone"),
    ],
)
def test_an_error_contains_the_spec_and_the_reason(spec: str, problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        parse_schedule(spec)

    assert repr(spec) in str(refused.value)
    assert problem in str(refused.value)


def test_a_spec_must_be_text() -> None:
    with pytest.raises(ConfigurationError, match="must be text"):
        parse_schedule(5)  # type: ignore[arg-type]


@rows(
    ("spec", "zone", "text"),
    [
        ("*/5  * *\t* *", "UTC", "*/5 * * * *"),
        ("0 9 * * *", "Europe/Berlin", "CRON_TZ=Europe/Berlin 0 9 * * *"),
        ("TZ=Asia/Tokyo @daily", "Europe/Berlin", "CRON_TZ=Asia/Tokyo @daily"),
        ("CRON_TZ=Local 0 9 * * *", "Europe/Berlin", "CRON_TZ=Europe/Berlin 0 9 * * *"),
        ("@every 1h30m", "Europe/Berlin", "@every 1h30m"),
    ],
)
def test_the_stored_text_includes_the_time_zone_for_go(spec: str, zone: str, text: str) -> None:
    schedule = parse_schedule(spec, zone=zone)

    assert schedule.text == text
    assert parse_schedule(text).next_after(START_S) == schedule.next_after(START_S)


@rows(
    ("spec", "shown"),
    [
        ("0 9 * * *", "0 9 * * * (Asia/Tokyo)"),
        ("CRON_TZ=Europe/Berlin 0 9 * * *", "0 9 * * * (Europe/Berlin)"),
        ("TZ=Local @daily", "@daily (Asia/Tokyo)"),
        ("@every 90s", "@every 90s"),
    ],
)
def test_the_displayed_text_ends_with_the_time_zone(spec: str, shown: str) -> None:
    assert with_zone(spec, "Asia/Tokyo") == shown


def test_a_day_that_a_zone_left_out_has_no_firing() -> None:
    """Samoa had no 30 December 2011."""
    start_s = int(datetime(2011, 12, 28, tzinfo=UTC).timestamp())

    found = fires("0 12 * * *", zone="Pacific/Apia", start_s=start_s, count=3)

    assert [datetime.fromtimestamp(each, UTC).isoformat() for each in found] == [
        "2011-12-28T22:00:00+00:00",
        "2011-12-29T22:00:00+00:00",
        "2011-12-30T22:00:00+00:00",  # noon of the 31st there
    ]


class TestAnchor:
    def test_an_interval_keeps_its_rhythm_over_a_gap(self) -> None:
        every = Every(90, "@every 90s")

        assert every.anchor(1000, 1000) == 1000
        assert every.anchor(1000, 1089) == 1000
        assert every.anchor(1000, 1090) == 1090
        assert every.anchor(1000, 10_000) == 10_000
        assert every.anchor(1000, 500) == 1000, "never before its start"

    def test_a_cron_line_follows_the_calendar(self) -> None:
        cron = parse_schedule("* * * * *")

        assert isinstance(cron, Cron)
        assert cron.anchor(1000, 2000) == 2000
        assert cron.anchor(1000, 500) == 1000

    def test_firings_after_a_limit_are_the_same_as_from_the_start(self) -> None:
        for spec in ("*/7 * * * *", "@every 97s"):
            schedule = parse_schedule(spec)
            all_of_them = fires(spec, start_s=START_S, count=200)
            limit_s = all_of_them[99] + 3

            assert schedule.next_after(schedule.anchor(START_S, limit_s)) == all_of_them[100]


class TestLimits:
    def test_a_leap_day_eight_years_away_is_not_found(self) -> None:
        """2100 is not a leap year, so the leap year after 2096 is 2104."""
        assert fires("0 0 29 2 *", start_s=unix("2096-03-01T00:00:00+00:00"), count=1) == []
        assert fires("0 0 29 2 *", start_s=unix("2099-01-01T00:00:00+00:00"), count=2) == [
            unix("2104-02-29T00:00:00+00:00"),
            unix("2108-02-29T00:00:00+00:00"),
        ]

    def test_the_year_is_that_of_the_time_zone(self) -> None:
        """In Tokyo the year 2099 has begun."""
        start_s = unix("2098-12-31T16:00:00+00:00")

        assert fires("0 0 29 2 *", start_s=start_s, count=1) == []
        assert fires("0 0 29 2 *", zone="Asia/Tokyo", start_s=start_s, count=1) == [unix("2104-02-28T15:00:00+00:00")]

    @rows("zone", ["UTC", "Pacific/Kiritimati", "America/New_York"])
    def test_the_calendar_ends_without_an_error(self, zone: str) -> None:
        late_s = unix("9988-12-30T00:00:00+00:00")

        assert len(fires("* * * * *", zone=zone, start_s=late_s)) == 8
        assert len(fires("0 0 29 2 *", zone=zone, start_s=late_s)) == 1
        for beyond_s in (unix("9989-01-01T00:00:00+00:00"), unix("9999-12-31T23:59:59+00:00"), 10**15, -(10**15)):
            assert fires("* * * * *", zone=zone, start_s=beyond_s) == []


@rows(
    ("spec", "told"),
    [
        ("0 0 30 2 *", "month 2 has no day 30"),
        ("0 0 30,31 FEB *", "month 2 has no day 30,31"),
        ("0 0 31 4,6,9,11 *", "month 4,6,9,11 has no day 31"),
        ("0 0 0 31 2/7 ?", "month 2,9 has no day 31"),
    ],
)
def test_a_line_that_never_fires_is_refused(spec: str, told: str) -> None:
    with pytest.raises(ConfigurationError, match=f"it never fires: {told}"):
        parse_schedule(spec)


@rows("spec", ["0 0 29 2 *", "0 0 30 2,3 *", "0 0 31 2 1", "0 0 30 2 */2", "0 0 31 */2 *", "0 0 28-31 2 *"])
def test_a_line_that_fires_rarely_is_accepted(spec: str) -> None:
    """A day of the week comes in every month, and one of several months may have the day."""
    assert len(fires(spec, start_s=unix("2026-01-01T00:00:00+00:00"), count=1)) == 1


class TestBounded:
    """From a start on, and before an end."""

    NOON = 1_790_000_000 // 86_400 * 86_400 + 43_200

    def all_after(self, schedule: Schedule, moment_s: int) -> list[int]:
        found = []
        while (next_s := schedule.next_after(moment_s)) is not None:
            found.append(next_s - self.NOON)
            moment_s = next_s
        return found

    def test_a_cron_line_fires_at_its_start_and_not_at_its_end(self) -> None:
        bounded = Bounded(parse_schedule("0 * * * *"), self.NOON + 3600, self.NOON + 4 * 3600)

        assert self.all_after(bounded, 0) == [3600, 7200, 10800]
        assert self.all_after(bounded, self.NOON + 3600) == [7200, 10800]
        assert bounded.text == "0 * * * *"
        assert bounded.anchor(5, 9) == 9

    def test_an_interval_starts_at_its_given_start(self) -> None:
        """This holds for a search from any time."""
        bounded = Bounded(parse_schedule("@every 90s"), self.NOON, self.NOON + 360)

        for moment_s, expected in ((0, [0, 90, 180, 270]), (self.NOON, [90, 180, 270]), (self.NOON + 100, [180, 270])):
            assert self.all_after(bounded, moment_s) == expected
        assert bounded.anchor(self.NOON - 500, self.NOON + 100) == self.NOON + 100

    def test_an_interval_without_a_start_starts_at_the_given_time(self) -> None:
        bounded = Bounded(parse_schedule("@every 90s"), None, self.NOON + 200)

        assert self.all_after(bounded, self.NOON + 5) == [95, 185]
        assert bounded.anchor(self.NOON + 5, self.NOON + 100) == self.NOON + 95


def test_a_field_of_days_that_names_them_all_is_no_star() -> None:
    """As the other field is restricted too, a day matches if either does: each."""
    assert fires("0 0 1-31 * 1") == fires("0 0 13 * 0-6") == fires("@daily")
    assert fires("0 0 13 * */1,0-6") == fires("0 0 13 * *"), "a star among others is one still"


def test_threads_share_a_schedule() -> None:
    """Each finds its own firings, however often they take turns."""
    schedule = parse_schedule("*/7 3-21 * * *")
    assert isinstance(schedule, Cron)
    starts = [START_S + 86_400 * number for number in range(4)]
    expected = [schedule.next_after(start_s) for start_s in starts]
    together = threading.Barrier(len(starts))

    def ask(start_s: int) -> set[int | None]:
        together.wait(timeout=30)
        return {schedule.compute_next_after(start_s) for _ in range(2000)}  # the uncached computation

    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(len(starts)) as pool:
            found = list(pool.map(ask, starts))
    finally:
        sys.setswitchinterval(interval_s)

    assert found == [{each} for each in expected]


Field = tuple[str, frozenset[int]]
"""The text of a field, and the numbers that it selects."""

STAR = "*"


def every(least: int, most: int) -> Field:
    return STAR, frozenset(range(least, most + 1))


def restricted(least: int, most: int) -> st.SearchStrategy[Field]:
    """Lists of numbers, spans and steps."""

    def part(low: int, high: int, step: int, form: str) -> Field:
        low, high = sorted((low, high))
        return {
            "number": (f"{low}", frozenset({low})),
            "span": (f"{low}-{high}", frozenset(range(low, high + 1))),
            "stepped span": (f"{low}-{high}/{step}", frozenset(range(low, high + 1, step))),
            "stepped rest": (f"{low}/{step}", frozenset(range(low, most + 1, step))),
            "stepped star": (f"*/{step + 1}", frozenset(range(least, most + 1, step + 1))),
        }[form]

    number = st.integers(least, most)
    forms = st.sampled_from(["number", "span", "stepped span", "stepped rest", "stepped star"])
    parts = st.builds(part, number, number, st.integers(1, most + 5), forms)
    return st.lists(parts, min_size=1, max_size=3).map(
        lambda found: (",".join(text for text, _ in found), frozenset().union(*(numbers for _, numbers in found)))
    )


def field(least: int, most: int) -> st.SearchStrategy[Field]:
    return st.one_of(st.just(every(least, most)), restricted(least, most))


def day_matches(day: date, days: Field, months: Field, weekdays: Field) -> bool:
    in_month, in_week = day.day in days[1], day.isoweekday() % 7 in weekdays[1]
    either = STAR not in (days[0], weekdays[0])
    return day.month in months[1] and ((in_month or in_week) if either else (in_month and in_week))


def counted_through(zone: str, start_s: int, end_s: int, step_s: int, *fields: Field) -> Iterator[int]:
    """Yield the moments after the start that match, from looking at each one until the end."""
    seconds, minutes, hours, *of_day = fields
    tz = ZoneInfo(zone)
    for moment_s in range((start_s // step_s + 1) * step_s, end_s, step_s):
        local = datetime.fromtimestamp(moment_s, tz)
        in_day = local.second in seconds[1] and local.minute in minutes[1] and local.hour in hours[1]
        if in_day and day_matches(local.date(), *of_day):
            yield moment_s


CHANGES = [
    ("Europe/Berlin", "2033-03-27T01:00:00+00:00"),
    ("Europe/Berlin", "2033-10-30T01:00:00+00:00"),
    ("Australia/Lord_Howe", "2033-04-02T15:00:00+00:00"),  # half an hour
    ("Australia/Lord_Howe", "2033-10-01T15:30:00+00:00"),
    ("America/Sao_Paulo", "2018-11-04T03:00:00+00:00"),  # leaves midnight out
    ("America/Sao_Paulo", "2018-02-18T02:00:00+00:00"),  # the hour before midnight comes twice
    ("Pacific/Apia", "2011-12-30T10:00:00+00:00"),  # leaves a day out
    ("Pacific/Kwajalein", "1993-08-21T12:00:00+00:00"),  # as well
    ("UTC", "2033-01-01T00:00:00+00:00"),  # none at all
]


@settings(deadline=None, max_examples=40)  # it looks at thousands of moments
@given(
    change=st.sampled_from(CHANGES),
    before_s=st.integers(0, 30 * 3600),
    minutes=field(0, 59),
    hours=field(0, 23),
    days=field(1, 31),
    months=st.one_of(st.just(every(1, 12)), field(1, 12)),
    weekdays=field(0, 6),
)
def test_fires_in_every_minute_that_matches(
    change: tuple[str, str], before_s: int, minutes: Field, hours: Field, days: Field, months: Field, weekdays: Field
) -> None:
    """The test checks each minute of two days around a change of the UTC offset."""
    zone, moment = change
    start_s = unix(moment) - before_s
    end_s = start_s + 2 * 86_400
    fields = (minutes, hours, days, months, weekdays)
    expected = list(counted_through(zone, start_s, end_s, 60, ("0", frozenset({0})), *fields))

    found = fires(" ".join(text for text, _ in fields), zone=zone, start_s=start_s, count=len(expected) + 1)

    assert found[: len(expected)] == expected
    assert all(each >= end_s for each in found[len(expected) :])


@settings(deadline=None)  # it looks at thousands of moments
@given(
    change=st.sampled_from(CHANGES),
    before_s=st.integers(-1800, 5400),
    seconds=restricted(0, 59),
    minutes=field(0, 59),
    hours=field(0, 23),
)
def test_fires_in_every_second_that_matches(
    change: tuple[str, str], before_s: int, seconds: Field, minutes: Field, hours: Field
) -> None:
    """The test checks each second of half an hour near a change of the UTC offset."""
    zone, moment = change
    start_s = unix(moment) - before_s
    end_s = start_s + 1800
    fields = (seconds, minutes, hours, every(1, 31), every(1, 12), every(0, 6))
    expected = list(counted_through(zone, start_s, end_s, 1, *fields))

    found = fires(" ".join(text for text, _ in fields), zone=zone, start_s=start_s, count=len(expected) + 1)

    assert found[: len(expected)] == expected
    assert all(each >= end_s for each in found[len(expected) :])


@given(
    days=st.one_of(st.integers(28, 31).map(lambda day: (str(day), frozenset({day}))), field(1, 31)),
    months=restricted(1, 12),
    weekdays=field(0, 6),
    start=st.dates(date(1970, 1, 2), date(2150, 1, 1)),
)
def test_fires_on_the_first_day_that_matches(days: Field, months: Field, weekdays: Field, start: date) -> None:
    """The test checks each day until the end of the fifth year after the year of the start."""
    spec = f"30 4 {days[0]} {months[0]} {weekdays[0]}"
    start_s = unix(f"{start}T04:30:00+00:00")  # its own day does not count any more
    every_day = (start + timedelta(days=number) for number in range(1, (date(start.year + 6, 1, 1) - start).days))
    expected = next((day for day in every_day if day_matches(day, days, months, weekdays)), None)
    in_leap_year = (date(2000, 1, 1) + timedelta(days=number) for number in range(366))

    if not any(day_matches(day, days, months, weekdays) for day in in_leap_year):
        with pytest.raises(ConfigurationError, match="it never fires"):
            parse_schedule(spec)
        return
    found = parse_schedule(spec).next_after(start_s)

    assert found == (None if expected is None else unix(f"{expected}T04:30:00+00:00"))
