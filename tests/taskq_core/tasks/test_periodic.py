"""Periodic tasks as values: entries, their ids and options, and the setting SCHEDULE."""

import io
import struct
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from taskq_core import (
    ConfigurationError,
    PeriodicTask,
    ScheduleHook,
    Settings,
    TaskArgumentsError,
    TaskDefinitionError,
    TaskQ,
)
from taskq_core.tasks.periodic import CatchUp
from tests.rows import rows


@pytest.fixture
def app() -> TaskQ:
    """An application that connects to nothing."""
    return TaskQ("redis://localhost:1")


def make_task(app: TaskQ, name: str = "work", **options: Any) -> Any:
    @app.task(name=name, **options)
    def work(number: int = 0) -> None: ...

    return work


class TestEntry:
    def test_the_decorator_returns_the_task_and_can_be_repeated(self, app: TaskQ) -> None:
        @app.periodic("0 8 * * *")
        @app.periodic("0 20 * * *", tz="Europe/Berlin")
        @app.task(name="work")
        def work() -> None: ...

        assert app.tasks["work"] is work
        assert sorted((each.spec, each.tz, each.call.task.name) for each in app.periodic_tasks()) == [
            ("0 20 * * *", "Europe/Berlin", "work"),
            ("0 8 * * *", None, "work"),
        ]

    def test_the_decorator_must_be_above_the_task_decorator(self, app: TaskQ) -> None:
        with pytest.raises(TaskDefinitionError, match="write @periodic above @task"):

            @app.periodic("@daily")  # type: ignore[type-var]
            def work() -> None: ...

    def test_the_default_id_depends_on_spec_zone_and_arguments(self, app: TaskQ) -> None:
        work = make_task(app)
        ids = [
            PeriodicTask("@daily", work).id,
            PeriodicTask("@daily", work.s()).id,
            PeriodicTask("@daily", work, queue="low", catch_up="all").id,
            PeriodicTask("@hourly", work).id,
            PeriodicTask("@daily", work, tz="Asia/Tokyo").id,
            PeriodicTask("@daily", work.s(1)).id,
        ]

        assert ids[0] == ids[1] == ids[2] == "work:6f24b2ba", "the same in every process and after every restart"
        assert len(set(ids)) == 4

    def test_the_same_entry_is_registered_once(self, app: TaskQ) -> None:
        """A module may be imported under two names."""
        work = make_task(app)

        for _ in range(2):
            app.schedule("@daily", work.s(1), id="entry", max_retry=2)

        assert [each.id for each in app.periodic_tasks()] == ["entry"]

    @rows("change", [{"spec": "@hourly"}, {"max_retry": 3}, {"number": 2}, {"window": 5}])
    def test_a_different_entry_with_the_same_id_is_refused(self, app: TaskQ, change: dict[str, Any]) -> None:
        work = make_task(app)
        app.schedule("@daily", work.s(1), id="entry", max_retry=2)
        spec, number = change.pop("spec", "@daily"), change.pop("number", 1)

        with pytest.raises(ConfigurationError, match=r"two periodic tasks have the id 'entry'.*another id="):
            app.schedule(spec, work.s(number), id="entry", **{"max_retry": 2, **change})

    def test_a_misspelled_attribute_raises(self, app: TaskQ) -> None:
        entry = PeriodicTask("@daily", make_task(app))

        with pytest.raises(AttributeError, match="paused"):
            entry.paused = True  # type: ignore[attr-defined]

    def test_invalid_entries_are_refused_at_definition(self, app: TaskQ) -> None:
        @app.task(name="needy")
        def needy(user_id: int) -> None: ...

        work = make_task(app)
        with pytest.raises(TaskArgumentsError, match="user_id"):
            app.periodic("@daily")(needy)
        with pytest.raises(TaskArgumentsError, match="number"):
            app.schedule("@daily", work.s("one"))
        with pytest.raises(ConfigurationError, match="schedule '@dayly': unknown descriptor"):
            app.schedule("@dayly", work)
        with pytest.raises(ConfigurationError, match="no time zone 'Europe/Atlantis'"):
            app.schedule("@daily", work, tz="Europe/Atlantis")
        with pytest.raises(ConfigurationError, match="catch_up must be 'skip', 'one' or 'all', got 'some'"):
            app.schedule("@daily", work, catch_up="some")
        with pytest.raises(ConfigurationError, match="window must be 0 or more seconds"):
            app.schedule("@daily", work, window=-1)
        with pytest.raises(ConfigurationError, match="unknown task option 'que'"):
            app.schedule("@daily", work, que="low")  # type: ignore[call-arg]
        with pytest.raises(ConfigurationError, match="entry id must not be blank"):
            app.schedule("@daily", work, id=" ")
        with pytest.raises(ConfigurationError, match="a periodic task is a task or"):
            app.schedule("@daily", print)  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="a provider must be a function"):
            app.schedule_provider([])  # type: ignore[call-overload]
        with pytest.raises(ConfigurationError, match=r"a hook must be a taskq_core.ScheduleHook, got .*brackets"):
            app.add_schedule_hook(ScheduleHook)  # type: ignore[arg-type]
        assert app.periodic_tasks() == []

    def test_a_zone_without_a_name_is_refused(self, app: TaskQ) -> None:
        """An entry is kept under its zone's name."""
        header = b"TZif" + bytes(16) + struct.pack(">6l", 0, 0, 0, 0, 1, 4)
        nameless = ZoneInfo.from_file(io.BytesIO(header + struct.pack(">lbb", 3600, 0, 0) + b"CET\0"))

        for zone in (nameless, UTC, 5):
            with pytest.raises(ConfigurationError, match="tz must be the IANA name of a time zone"):
                PeriodicTask("@daily", make_task(app), tz=zone)  # type: ignore[arg-type]

    def test_zones_are_names_objects_or_the_setting(self, app: TaskQ) -> None:
        work = make_task(app)

        assert PeriodicTask("@daily", work, tz=ZoneInfo("Asia/Tokyo")).tz == "Asia/Tokyo"
        assert PeriodicTask("@daily", work).schedule("Asia/Tokyo").text == "CRON_TZ=Asia/Tokyo @daily"
        assert PeriodicTask("TZ=UTC @daily", work, tz="Asia/Tokyo").schedule("Asia/Tokyo").text == "@daily"

    def test_options_are_stored_in_the_format_of_asynq(self, app: TaskQ) -> None:
        """Options that Asynq does not have, or that have their default value, are left out."""
        work = make_task(app, max_retry=9)
        entry = PeriodicTask(
            "@daily",
            work,
            queue="low",
            max_retry=3,
            task_id="x",
            timeout=timedelta(seconds=90),
            deadline=datetime(2033, 5, 18, 3, 33, 20, tzinfo=UTC),
            unique_for=3600,
            run_after=10,
            retention=timedelta(hours=24),
            aggregate="g",
            headers={"k": "v"},
            priority=5,
        )

        assert entry.option_strings == (
            'Queue("low")',
            "MaxRetry(3)",
            'TaskID("x")',
            "Timeout(1m30s)",
            "Deadline(Wed May 18 03:33:20 UTC 2033)",
            "Unique(1h0m0s)",
            "ProcessIn(10s)",
            "Retention(24h0m0s)",
            'Group("g")',
            'Header(["k","v"])',
        )
        assert PeriodicTask("@daily", work).option_strings == ("MaxRetry(9)",)
        plain = app.task(name="plain")(lambda: None)
        assert PeriodicTask("@daily", plain).option_strings == ()
        at = PeriodicTask("@daily", plain, run_after=datetime(2033, 5, 18, tzinfo=UTC))
        assert at.option_strings == ("ProcessAt(Wed May 18 00:00:00 UTC 2033)",)


class TestBounds:
    NOON = datetime(2030, 5, 1, 12, tzinfo=UTC)

    def test_an_entry_fires_from_its_start_until_before_its_end(self, app: TaskQ) -> None:
        hour = timedelta(hours=1)
        entry = PeriodicTask("@hourly", make_task(app), start=self.NOON, expire=self.NOON + 2 * hour)

        assert entry.upcoming(self.NOON - 100 * hour, 5) == [self.NOON, self.NOON + hour]
        assert entry.upcoming(self.NOON + hour, 5) == []

    def test_an_interval_is_counted_from_its_start(self, app: TaskQ) -> None:
        entry = PeriodicTask("@every 90s", make_task(app), start=self.NOON + timedelta(microseconds=1))
        first = self.NOON + timedelta(seconds=1)

        assert entry.upcoming(self.NOON, 2) == [first, first + timedelta(seconds=90)]
        assert entry.upcoming(first + timedelta(seconds=200), 1) == [first + timedelta(seconds=270)]

    def test_the_next_firings_use_the_time_zone(self, app: TaskQ) -> None:
        """In Berlin the clock goes from two to three on 31 March 2030."""
        entry = PeriodicTask("30 2 * * *", make_task(app), tz="Europe/Berlin")

        found = entry.upcoming(datetime(2030, 3, 29, 12, tzinfo=UTC), 2)

        assert found == [datetime(2030, 3, 30, 1, 30, tzinfo=UTC), datetime(2030, 4, 1, 0, 30, tzinfo=UTC)]

    @pytest.mark.parametrize(
        ("bounds", "told"),
        [
            ({"start": datetime(2030, 1, 1)}, "start must be an aware datetime"),  # noqa: DTZ001 - it is refused
            ({"expire": "tomorrow"}, "expire must be an aware datetime, got 'tomorrow'"),
            ({"start": NOON, "expire": NOON}, "start must be before expire"),
        ],
    )
    def test_invalid_bounds_are_refused(self, app: TaskQ, bounds: dict[str, Any], told: str) -> None:
        with pytest.raises(ConfigurationError, match=told):
            PeriodicTask("@hourly", make_task(app), **bounds)


class TestSetting:
    def entries(self, schedule: dict[str, Any], **settings: Any) -> list[PeriodicTask]:
        app = TaskQ("redis://localhost:1", schedule=schedule, **settings)
        make_task(app)
        return app.periodic_tasks()

    def test_an_entry_with_all_fields_is_read(self) -> None:
        (entry,) = self.entries(
            {
                "nightly": {
                    "task": "work",
                    "cron": "0 2 * * *",
                    "kwargs": {"number": 5},
                    "tz": "Europe/Berlin",
                    "catch_up": "all",
                    "window": timedelta(hours=2),
                    "queue": "low",
                    "options": {"max_retry": 1},
                }
            }
        )

        assert (entry.id, entry.spec, entry.tz, entry.payload) == (
            "nightly",
            "0 2 * * *",
            "Europe/Berlin",
            b'{"number":5}',
        )
        assert (entry.catch_up, entry.window_s) == (CatchUp.ALL, 7200)
        assert entry.option_strings == ('Queue("low")', "MaxRetry(1)")

    @rows(
        ("given", "problem"),
        [
            ("@daily", "the entry must be a dict with 'task' and 'spec', got str"),
            ({"task": "work"}, "give exactly one of 'spec' and 'cron'"),
            ({"task": "work", "spec": "@daily", "cron": "@daily"}, "give exactly one of 'spec' and 'cron'"),
            ({"spec": "@daily"}, "'task' must be the name of a task, got None"),
            ({"task": "work", "spec": "@dayly"}, "unknown descriptor"),
            ({"task": "work", "spec": "@daily", "tz": "Mars"}, "no time zone 'Mars'"),
            ({"task": "work", "spec": "@daily", "tz": 5}, "'tz' must be the name of a time zone"),
            ({"task": "work", "spec": "@daily", "kwarg": {}}, "unknown key 'kwarg'; did you mean 'kwargs'?"),
            ({"task": "work", "spec": "@daily", "kwargs": [1]}, "'kwargs' must be a dict"),
            ({"task": "work", "spec": "@daily", "queue": ""}, "queue name must not be blank"),
            ({"task": "work", "spec": "@daily", "options": {"que": ""}}, "unknown task option 'que'"),
            ({"task": "work", "spec": "@daily", "catch_up": "some"}, "catch_up must be"),
            ({"task": "work", "spec": "@daily", "remote": "yes"}, "'remote' must be True or False"),
        ],
    )
    def test_an_invalid_entry_is_refused_before_a_connection(self, given: Any, problem: str) -> None:
        with pytest.raises(ConfigurationError) as refused:
            self.entries({"nightly": given})

        assert str(refused.value).startswith("SCHEDULE['nightly']: ")
        assert problem in str(refused.value)

    def test_the_type_of_the_setting_is_checked(self) -> None:
        with pytest.raises(ConfigurationError, match="SCHEDULE must be a dict"):
            Settings(schedule=["@daily"])  # type: ignore[arg-type]
        with pytest.raises(ConfigurationError, match="TIME_ZONE: there is no time zone 'Mars'"):
            Settings(time_zone="Mars")

    def test_an_unregistered_task_is_refused_unless_declared_remote(self) -> None:
        with pytest.raises(ConfigurationError, match="unknown task 'wrok'; did you mean 'work'"):
            self.entries({"nightly": {"task": "wrok", "spec": "@daily"}})

        (entry,) = self.entries({"nightly": {"task": "go:task", "spec": "@daily", "remote": True}})
        assert (entry.call.task.name, entry.payload) == ("go:task", b"{}")

    def test_the_error_reports_that_no_task_is_registered(self) -> None:
        with pytest.raises(
            ConfigurationError, match=r"unknown task 'work'; there are none yet \(if the task's code is in another"
        ):
            TaskQ(schedule={"nightly": {"task": "work", "spec": "@daily"}}).periodic_tasks()

    def test_invalid_arguments_are_refused(self) -> None:
        with pytest.raises(TaskArgumentsError, match="number"):
            self.entries({"nightly": {"task": "work", "spec": "@daily", "kwargs": {"number": "five"}}})

    def test_an_id_used_in_code_is_refused(self) -> None:
        app = TaskQ("redis://localhost:1", schedule={"nightly": {"task": "work", "spec": "@daily"}})
        app.schedule("@hourly", make_task(app), id="nightly")

        with pytest.raises(ConfigurationError, match="two periodic tasks have the id 'nightly'"):
            app.periodic_tasks()

    def test_the_environment_can_set_the_schedule(self) -> None:
        app = TaskQ.from_env(
            {
                "TASKQ_URL": "redis://localhost:1",
                "TASKQ_SCHEDULE": '{"nightly": {"task": "work", "spec": "@daily"}}',
                "TASKQ_TIME_ZONE": "Asia/Tokyo",
            }
        )
        make_task(app)

        (entry,) = app.periodic_tasks()
        assert entry.schedule(app.settings.time_zone).text == "CRON_TZ=Asia/Tokyo @daily"
