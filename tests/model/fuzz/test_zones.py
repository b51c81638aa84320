"""Cron lines fire in the right minutes around every clock change of ten years, in every time zone.

The expected minutes are found by checking each minute separately.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from functools import cache
from zoneinfo import ZoneInfo, available_timezones

import pytest

from taskq_core.wire.cron import parse_schedule

FIRST_S = int(datetime(2024, 1, 1, tzinfo=UTC).timestamp())
LAST_S = int(datetime(2034, 1, 1, tzinfo=UTC).timestamp())
DAY_S = 86_400
AROUND_S = 9000

SPECS = {
    "30 2 * * *": lambda local: (local.hour, local.minute) == (2, 30),
    "*/20 0-3 * * *": lambda local: local.minute % 20 == 0 and local.hour <= 3,
    "15 * * * *": lambda local: local.minute == 15,
    "0 0 * * *": lambda local: (local.hour, local.minute) == (0, 0),
    "59 23 31 3,10 *": lambda local: (local.hour, local.minute, local.day) == (23, 59, 31) and local.month in (3, 10),
    "5 1 29 2 *": lambda local: (local.hour, local.minute, local.day, local.month) == (1, 5, 29, 2),
}
FIXED_MOMENTS = tuple(
    int(datetime(year, month, day, tzinfo=UTC).timestamp())
    for year in (2027, 2028)
    for month, day in ((3, 1), (3, 31), (4, 1), (12, 31))
)
"""Ends of months and leap days, checked in every zone."""


def offset_s(zone: ZoneInfo, moment_s: int) -> float:
    offset = datetime.fromtimestamp(moment_s, zone).utcoffset()
    assert offset is not None
    return offset.total_seconds()


def changes(zone: ZoneInfo) -> Iterator[int]:
    """Yield the minutes in which the offset of a zone changes. Two changes within two weeks may be missed."""
    at_s, before = FIRST_S, offset_s(zone, FIRST_S)
    while at_s < LAST_S:
        until_s = at_s + 14 * DAY_S
        after = offset_s(zone, until_s)
        if after != before:
            while until_s - at_s > 60:
                middle_s = (at_s + until_s) // 120 * 60
                if offset_s(zone, middle_s) == before:
                    at_s = middle_s
                else:
                    until_s = middle_s
            yield until_s
            before = offset_s(zone, until_s)
        at_s = until_s


@cache
def zones() -> dict[tuple[int, ...], str]:
    """Return one zone for each sequence of offset changes, so that equal zones are checked once."""
    found: dict[tuple[int, ...], str] = {}
    for name in sorted(available_timezones() - {"localtime"}):
        zone = ZoneInfo(name)
        moments = tuple(changes(zone))
        found.setdefault((int(offset_s(zone, FIRST_S)), *moments), name)
    return found


@pytest.mark.timeout(1800)  # for all zones
@pytest.mark.parametrize("share", [20, pytest.param(1, marks=pytest.mark.nightly)])
def test_every_clock_change_in_every_zone(share: int) -> None:
    """The test checks one of twenty zones, and all zones in the nightly suite."""
    checked = 0
    for spec, fires in SPECS.items():
        for (_, *moments), name in list(zones().items())[::share]:
            zone, schedule = ZoneInfo(name), parse_schedule(spec, zone=name)
            for moment_s in (*moments, *FIXED_MOMENTS):
                start_s, end_s = moment_s - AROUND_S, moment_s + AROUND_S
                minutes = range(start_s // 60 * 60 + 60, end_s + 1, 60)
                expected = [each for each in minutes if fires(datetime.fromtimestamp(each, zone))]

                found, at_s = [], start_s
                while (at_s := schedule.next_after(at_s) or end_s + 1) <= end_s:
                    found.append(at_s)

                assert found == expected, f"{spec} in {name} near {datetime.fromtimestamp(moment_s, UTC)}"
                checked += 1
    assert checked > 300
