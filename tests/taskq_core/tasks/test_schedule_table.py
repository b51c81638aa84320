"""Test rows of a table of periodic tasks: errors are reported per field, and valid rows become entries."""

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.errors import ConfigurationError, TaskArgumentsError
from taskq_core.tasks.periodic import CatchUp
from taskq_core.tasks.schedule_table import ScheduleRow, entry_of, problems
from tests.rows import rows

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)


@pytest.fixture
def app() -> TaskQ:
    app = TaskQ("redis://localhost:1")

    @app.task(name="report")
    def report(kind: str, day: date | None = None, days: int = 7) -> None: ...

    return app


def row(**given: Any) -> ScheduleRow:
    line = {} if "interval" in given else {"cron": "0 9 * * *"}
    standard = {"id": 7, "name": "sales", "task": "report", "kwargs": {"kind": "a"}, "created_at": NOW, **line}
    return ScheduleRow(**{**standard, **given})


def told(app: TaskQ, given: ScheduleRow) -> dict[str, str]:
    return problems(given, app.tasks, app.remote, zone="UTC", now=NOW)


@rows(
    ("given", "field", "problem"),
    [
        ({"name": "  "}, "name", "must not be blank"),
        ({"name": "a\nb"}, "name", "control character"),
        ({"task": "repor"}, "task", "did you mean 'report'? (a task of another program has to be declared remote)"),
        ({"task": "", "is_remote": True}, "task", "must not be blank"),
        ({"cron": "60 * * * *"}, "cron", "minute: '60' is outside 0 to 59"),
        ({"cron": "0 0 * feb,wed *"}, "cron", "month: 'wed' is not a number"),
        ({"cron": "0 0 * *"}, "cron", "five fields (minute, hour, day of month, month, day of week)"),
        ({"cron": "0 0 30 2 *"}, "cron", "it never fires: month 2 has no day 30"),
        ({"cron": "@dayly"}, "cron", "unknown descriptor"),
        ({"cron": ""}, "cron", "give either a cron line or an interval"),
        ({"cron": "@daily", "interval": timedelta(hours=1)}, "interval", "give either a cron line or an interval"),
        ({"interval": timedelta(0)}, "interval", "from 1 second to 100 years, got 0 s"),
        ({"interval": timedelta(seconds=-5)}, "interval", "from 1 second to 100 years, got -5 s"),
        ({"interval": timedelta(milliseconds=1500)}, "interval", "must be whole seconds"),
        ({"interval": timedelta(days=40_000)}, "interval", "from 1 second to 100 years"),
        ({"time_zone": "Europe/Berln"}, "time_zone", "no time zone 'Europe/Berln'"),
        ({"time_zone": "UTC", "cron": "CRON_TZ=Asia/Tokyo @daily"}, "time_zone", "names a time zone, too; remove one"),
        ({"kwargs": {}}, "kwargs", "missing 1 required positional argument: 'kind'"),
        ({"kwargs": {"kind": 5}}, "kwargs", "parameter 'kind': expected str, got int"),
        ({"kwargs": {"kind": "a", "dayss": 1}}, "kwargs", "unexpected keyword argument 'dayss'; did you mean 'days'?"),
        ({"kwargs": {"kind": "a", "day": "someday"}}, "kwargs", "parameter 'day'"),
        ({"kwargs": ["a"]}, "kwargs", "must be a JSON object"),
        ({"queue": "}x"}, "queue", "must not start with '}'"),
        ({"options": {"max_retri": 1}}, "options", "did you mean 'max_retry'?"),
        ({"options": {"max_retry": -1}}, "options", "max_retry must be between 0"),
        ({"options": {"retry_on": "x"}}, "options", "retry_on='x' cannot be set for a single call"),
        ({"options": {"replicated": 1}}, "options", "replicated=1 has no effect in a schedule"),
        ({"options": {"queue": "low"}, "queue": "low"}, "options", "in its own field"),
        ({"options": [1]}, "options", "must be a JSON object"),
        ({"catch_up": "some"}, "catch_up", "'skip', 'one' or 'all'"),
        ({"catch_up_window": timedelta(-1)}, "catch_up_window", "must be 0 or more seconds"),
        ({"start_at": NOW, "expire_at": NOW}, "expire_at", "start must be before expire"),
        ({"expire_at": NOW + timedelta(hours=1)}, "expire_at", "it never fires before it expires"),
    ],
)
def test_an_error_names_its_field(app: TaskQ, given: dict[str, Any], field: str, problem: str) -> None:
    """Making an entry of the row is also refused, except for mistakes that are valid but pointless."""
    found = told(app, row(**given))

    assert list(found) == [field]
    assert problem in found[field]


def test_all_errors_are_reported_together(app: TaskQ) -> None:
    found = told(app, row(task="x", time_zone="x", cron="x", options={"x": 1}, catch_up="x"))

    assert list(found) == ["task", "time_zone", "cron", "options", "catch_up"]


@rows("given", [{"task": "x"}, {"cron": "x"}, {"options": {"x": 1}}, {"catch_up": "x"}, {"name": "\n"}])
def test_an_invalid_row_creates_no_entry(app: TaskQ, given: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        entry_of(row(**given), app.tasks, app.remote)


def test_invalid_arguments_create_no_entry(app: TaskQ) -> None:
    with pytest.raises(TaskArgumentsError, match="kind"):
        entry_of(row(kwargs={}), app.tasks, app.remote)


def test_a_row_with_all_fields_becomes_an_entry(app: TaskQ) -> None:
    given = row(
        time_zone="Europe/Berlin",
        queue="low",
        options={"max_retry": 2, "timeout": 60},
        kwargs={"kind": "a", "day": "2030-01-31"},
        enabled=False,
        catch_up="all",
        catch_up_window=timedelta(hours=2),
        start_at=NOW,
        expire_at=NOW + timedelta(days=9),
    )

    assert told(app, given) == {}
    entry = entry_of(given, app.tasks, app.remote)

    assert (entry.id, entry.spec, entry.tz) == ("sales#7", "0 9 * * *", "Europe/Berlin")
    assert entry.payload == b'{"kind":"a","day":"2030-01-31"}', "text where the task takes a date"
    assert entry.option_strings == ('Queue("low")', "MaxRetry(2)", "Timeout(1m0s)")
    assert (entry.catch_up, entry.window_s, entry.is_paused) == (CatchUp.ALL, 7200, True)
    assert (entry.start, entry.expire) == (given.start_at, given.expire_at)
    assert entry.upcoming(NOW, 1) == [datetime(2030, 5, 2, 7, tzinfo=UTC)]


def test_a_row_can_name_a_task_of_another_program(app: TaskQ) -> None:
    given = row(task="go:report", is_remote=True, kwargs={"n": [1, None]})

    assert told(app, given) == {}
    assert entry_of(given, app.tasks, app.remote).payload == b'{"n":[1,null]}'


@pytest.mark.parametrize("line", [{"interval": timedelta(seconds=90)}, {"cron": "@every 90s"}])
def test_an_interval_starts_at_its_start_or_at_the_creation_of_the_row(app: TaskQ, line: dict[str, Any]) -> None:
    """All programs can then compute its firings, and a scheduler that starts changes none."""
    later = NOW + timedelta(hours=1)

    made = entry_of(row(**line), app.tasks, app.remote)
    started = entry_of(row(**line, start_at=later + timedelta(seconds=5)), app.tasks, app.remote)

    assert made.upcoming(later, 2) == [later + timedelta(seconds=90), later + timedelta(seconds=180)]
    assert started.upcoming(NOW, 1) == [later + timedelta(seconds=5)]


def test_rows_of_two_tables_are_counted_separately(app: TaskQ) -> None:
    """They may be of two projects that share a queue, and have the same number."""
    first, second = row(), row(created_at=NOW + timedelta(seconds=1))

    assert first.run_key != second.run_key
    assert entry_of(first, app.tasks, app.remote).run_key == first.run_key


def test_an_ended_row_is_valid(app: TaskQ) -> None:
    over = row(expire_at=NOW - timedelta(days=1))

    assert list(told(app, over)) == ["expire_at"]
    assert problems(over, app.tasks, app.remote, zone="UTC") == {}


def test_a_row_can_have_arguments_for_variadic_keywords(app: TaskQ) -> None:
    @app.task(name="collect_groups")
    def collect_groups(day: date, **extra: object) -> None: ...

    entry = entry_of(row(task="collect_groups", kwargs={"day": "2030-01-01", "x": 1}), app.tasks, app.remote)

    assert entry.payload == b'{"day":"2030-01-01","extra":{"x":1}}'
