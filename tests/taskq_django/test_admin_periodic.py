"""Test periodic tasks in the admin: editing, enabling and running with permissions, and schedules from code."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from html import unescape
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from taskq_core import PeriodicTask as Entry
from taskq_core.errors import BrokerUnavailableError
from taskq_core.inspector import Inspector
from taskq_django import schedule, taskq
from taskq_django.admin.periodic import local_time
from taskq_django.models import PeriodicTask
from tests.hostile import HOSTILE, assert_escaped
from tests.rows import rows
from tests.taskq_django.admin_pages import PERIODIC as LIST
from tests.taskq_django.shop.tasks import greet, restock

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("redis")]
FORM = {
    "name": "daily",
    "task": "shop:greet",
    "kwargs": '{"name": "Ada"}',
    "cron": "0 3 * * *",
    "options": "{}",
    "catch_up": "one",
    "catch_up_window": "01:00:00",
    "enabled": "on",
}


@pytest.fixture
def login(client: Client) -> Callable[..., Client]:
    """Return the browser of a user with these permissions on periodic tasks."""

    def login(*words: str) -> Client:
        user = User.objects.create_user("ada", is_staff=True)
        names = [word if word == "view_payload" else f"{word}_periodictask" for word in words]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        assert user.user_permissions.count() == len(words)
        client.force_login(user)
        return client

    return login


@pytest.fixture
def staff(login: Callable[..., Client]) -> Client:
    return login("view", "add", "change", "delete", "run", "view_payload")


@pytest.fixture
def of_the_code() -> Iterator[None]:
    schedule("0 9 * * MON-FRI", greet.s("Ada"), id="nightly", tz="Asia/Tokyo", max_retry=3)
    schedule("@every 90s", restock.s(sku="x"), id="poll")
    yield
    taskq.unschedule("nightly")
    taskq.unschedule("poll")


def make(name: str = "hello", **given: Any) -> PeriodicTask:
    standard = {"task": "shop:greet", "kwargs": {"name": "Ada"}, "cron": "0 3 * * *"}
    return PeriodicTask.objects.create(name=name, **{**standard, **given})


def names(html: str) -> list[str]:
    return [unescape(each) for each in re.findall(r'field-name"><a [^>]*>([^<]*)</a>', html)]


def errors(html: str) -> dict[str, str]:
    found = re.findall(r'<ul class="errorlist"(?: id="id_(\w+?)_error")?><li>(.*?)</li>', html)
    return {field: unescape(text) for field, text in found}


def messages_of(html: str) -> list[str]:
    return [
        unescape(re.sub("<[^>]*>", "", each))
        for each in re.findall(r'<li class="(?:success|warning|error)">(.*?)</li>', html)
    ]


def page(browser: Client, path: str = "", **query: str) -> str:
    response = browser.get(LIST + path, query)
    assert response.status_code == 200
    return response.content.decode()


def act(browser: Client, action: str, *rows: PeriodicTask, **more: str) -> str:
    posted = {"action": action, "_selected_action": [str(row.pk) for row in rows], "select_across": "0", "index": "0"}
    return browser.post(LIST, {**posted, **more}, follow=True).content.decode()


def pending(queue: str = "default") -> list[bytes]:
    inspector = Inspector(taskq)
    return [each.payload for each in inspector.tasks(queue, "pending").tasks] if queue in inspector.queues() else []


class TestForm:
    def test_a_row_is_created_and_edited(self, staff: Client) -> None:
        staff.post(f"{LIST}add/", {**FORM, "interval": "", "queue": "low", "options": '{"max_retry": 2}'})
        row = PeriodicTask.objects.get()
        assert (row.kwargs, row.queue, row.options, row.enabled) == ({"name": "Ada"}, "low", {"max_retry": 2}, True)

        staff.post(f"{LIST}{row.pk}/change/", {**FORM, "cron": "", "interval": "90"})

        row.refresh_from_db()
        assert (row.cron, row.interval) == ("", timedelta(seconds=90))
        assert len(LogEntry.objects.all()) == 2
        assert LogEntry.objects.earliest("pk").get_change_message() == "Added."

    def test_each_error_is_shown_at_its_field(self, staff: Client) -> None:
        given = {"task": "shop:gret", "cron": "0 0 30 2 *", "time_zone": "Mars/Base", "options": '{"max_retri": 3}'}

        found = errors(staff.post(f"{LIST}add/", {**FORM, **given}).content.decode())

        assert list(found) == ["task", "options", "cron", "time_zone"]
        assert "did you mean 'shop:greet'?" in found["task"]
        assert "it never fires: month 2 has no day 30" in found["cron"]
        assert "did you mean 'max_retry'?" in found["options"]
        assert not PeriodicTask.objects.exists()

    def test_unreadable_input_causes_one_error(self, staff: Client) -> None:
        given = {"kwargs": "{", "cron": "", "interval": "often", "start_at_0": "x", "start_at_1": "y"}

        found = errors(staff.post(f"{LIST}add/", {**FORM, **given}).content.decode())

        assert found["kwargs"] == "Enter a valid JSON."
        assert found["interval"] == "Enter a valid duration."
        assert "cron" not in found

    @rows("field", ["kwargs", "options"])
    @rows(
        ("text", "expected"),
        [
            ("[" * 100_000, "cannot be stored"),
            ('{"name": ' + "[" * 2000 + "]" * 2000 + "}", "cannot be stored"),
            ('{"name": ' + "[" * 64 + "]" * 64 + "}", "cannot be stored"),
            ('{"name": ' + "9" * 5000 + "}", "cannot be stored"),
            ('{"name": "\\ud800"}', "cannot be stored"),
            ('{"\\udc00": 1}', "cannot be stored"),
            ('{"name": ["\\u0000"]}', "cannot be stored"),
            ('{"name": NaN}', "cannot be stored"),
            ('{"name": -Infinity}', "cannot be stored"),
        ],
        ids=["brackets", "levels", "a level too many", "digits", "half", "half of a name", "null", "nan", "infinity"],
    )
    def test_json_that_cannot_be_stored_or_shown_is_refused(
        self, staff: Client, field: str, text: str, expected: str
    ) -> None:
        """This includes a task of another program, whose arguments are unknown here."""
        given = {"task": "other:program", "is_remote": "on", field: text}

        html = staff.post(f"{LIST}add/", {**FORM, **given}).content.decode()

        assert expected in errors(html)[field]
        assert text in unescape(html)  # as it was typed
        assert not PeriodicTask.objects.exists()

    @rows("value", ["C:\\u0000", "\\\\u0000", "[" * 63 + "]" * 63])
    def test_json_that_resembles_refused_json_is_stored(self, staff: Client, value: str) -> None:
        """A backslash followed by u0000 is not the character U+0000, and 64 levels of nesting are allowed."""
        arguments = {"name": json.loads(value) if value.startswith("[") else value}
        given = {"task": "other:program", "is_remote": "on", "name": value[:9], "kwargs": json.dumps(arguments)}

        html = staff.post(f"{LIST}add/", {**FORM, **given}, follow=True).content.decode()

        assert errors(html) == {}
        assert PeriodicTask.objects.get(name=value[:9]).kwargs == arguments

    def test_a_stored_lone_surrogate_is_shown_as_an_escape(self, staff: Client) -> None:
        row = make(kwargs={"name": "\ud800"})

        assert '{"name": "\\ud800"}' in unescape(page(staff, f"{row.pk}/change/"))

    @rows("field", ["start_at", "expire_at"])
    @rows("zone", ["America/Los_Angeles", "Pacific/Kiritimati"])
    @rows("moment", [("0001-01-01", "00:00:00"), ("9999-12-31", "23:59:59")])
    def test_a_time_that_some_time_zones_cannot_represent_is_refused(
        self, staff: Client, settings: Any, field: str, zone: str, moment: tuple[str, str]
    ) -> None:
        settings.TIME_ZONE = zone

        response = staff.post(f"{LIST}add/", {**FORM, f"{field}_0": moment[0], f"{field}_1": moment[1]})

        assert errors(response.content.decode())[field] == "Give a year from 2 to 9998."

    def test_the_form_suggests_tasks_and_time_zones(self, staff: Client) -> None:
        html = page(staff, "add/")

        assert '<option value="shop:restock">' in html
        assert '<option value="Europe/Berlin">' in html
        assert "Next runs" not in html

    def test_the_next_runs_are_shown_in_both_time_zones(self, staff: Client, settings: Any) -> None:
        """Times are shown in the entry's time zone and in the user's."""
        settings.TIME_ZONE = "America/New_York"
        row = make(cron="30 4 * * *", time_zone="Europe/Berlin")

        html = page(staff, f"{row.pk}/change/")

        assert "America/New_York (your time zone)" in html
        cells = re.findall(r"<td>([^<]*)</td>", html[html.index("taskq-upcoming") :])
        assert len(cells) == 10
        assert all(re.search(r", 04:30 CES?T$", each) for each in cells[::2])
        assert all(re.search(r", (21|22|23):30 E[SD]T$", each) for each in cells[1::2])


class TestList:
    @pytest.mark.usefixtures("of_the_code")
    def test_a_schedule_from_code_is_paused_and_resumed(self, staff: Client) -> None:
        """This holds even without a scheduler. An entry added at run time is listed beside it."""
        Inspector(taskq).add_schedule(Entry("@daily", greet.s("Bob"), id="added"))
        address = "code_3Anightly/"

        before = page(staff, address + "change/")
        paused = staff.post(f"{LIST}{address}switch/", follow=True).content.decode()
        listed = page(staff, enabled__exact="0")
        resumed = staff.post(f"{LIST}{address}switch/", follow=True).content.decode()

        assert 'formaction="/admin/taskq_django/periodictask/code_3Anightly/switch/"' in before
        assert messages_of(paused) == ["The periodic task was paused."]
        assert "no (paused)" in paused
        assert names(listed) == ["nightly"]
        assert messages_of(resumed) == ["The periodic task was resumed."]
        assert names(page(staff)) == ["added", "nightly", "poll"]
        assert "added at run time" in page(staff, "code_3Aadded/change/")

    @pytest.mark.usefixtures("of_the_code")
    def test_a_schedule_added_at_run_time_can_be_deleted_and_one_from_code_cannot(self, staff: Client) -> None:
        inspector = Inspector(taskq)
        inspector.add_schedule(Entry("@daily", greet.s("Bob"), id="added"))

        asked = page(staff, "code_3Aadded/delete/")
        staff.post(f"{LIST}code_3Aadded/delete/", {"post": "yes"}, follow=True)
        refused = staff.post(f"{LIST}code_3Anightly/delete/", {"post": "yes"})

        assert "Are you sure" in asked
        assert "code_3Aadded/delete/" not in page(staff)
        assert names(page(staff)) == ["nightly", "poll"]
        assert inspector.scheduler_entries() == []
        assert refused.status_code == 403

    def test_a_redis_error_during_a_deletion_is_reported(self, staff: Client, monkeypatch: pytest.MonkeyPatch) -> None:
        Inspector(taskq).add_schedule(Entry("@daily", greet.s("Bob"), id="added"))

        def away(*_: Any) -> None:
            raise BrokerUnavailableError("Redis is away")

        monkeypatch.setattr(Inspector, "remove_schedule", away)

        html = staff.post(f"{LIST}code_3Aadded/delete/", {"post": "yes"}, follow=True).content.decode()

        assert messages_of(html) == ["Redis is away"]
        assert "added at run time" in html
        assert not LogEntry.objects.exists()

    @pytest.mark.usefixtures("of_the_code")
    def test_the_list_shows_schedules_from_code_and_from_the_table(self, staff: Client) -> None:
        """Filters and search apply to them, and they cannot be selected for an action."""
        make("in the table")
        make("off", enabled=False, queue="low")
        html = page(staff)

        assert names(html) == ["in the table", "off", "nightly", "poll"]
        assert html.count('class="action-select"') == 2
        assert names(page(staff, source="code")) == ["nightly", "poll"]
        assert names(page(staff, source="database")) == ["in the table", "off"]
        assert names(page(staff, q="nightly")) == ["nightly"]
        assert names(page(staff, q="greet")) == ["in the table", "off", "nightly"]
        assert names(page(staff, enabled__exact="1")) == ["in the table", "nightly", "poll"]
        assert names(page(staff, enabled__exact="0")) == ["off"]
        assert names(page(staff, task="shop:restock")) == ["poll"]
        assert names(page(staff, q="low")) == ["off", "poll"]

    @pytest.mark.usefixtures("of_the_code")
    def test_the_list_counts_schedules_from_code_and_from_the_table(self, staff: Client) -> None:
        assert "2 periodic tasks" in page(staff)

        make("in the table")

        assert "3 periodic tasks" in page(staff)
        assert "0 of 1 selected" in page(staff)  # those of the code cannot be selected
        assert "1 result" in page(staff, q="nightly")
        assert "3 total" in page(staff, q="nightly")
        assert "1 periodic task\n" in page(staff, source="database")

    @pytest.mark.usefixtures("of_the_code")
    def test_schedules_from_code_are_listed_on_the_last_page(
        self, staff: Client, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(admin.site._registry[PeriodicTask], "list_per_page", 2)
        for number in "123":
            make(number)

        assert names(page(staff)) == ["1", "2"]
        assert names(page(staff, p="2")) == ["3", "nightly", "poll"]

    @pytest.mark.usefixtures("of_the_code")
    def test_the_page_of_a_schedule_from_code_is_read_only(self, staff: Client) -> None:
        address = reverse("admin:taskq_django_periodictask_change", args=["code_3Anightly"])

        html = staff.get(address).content.decode()

        for text in ("0 9 * * MON-FRI (Asia/Tokyo)", "MaxRetry(3)", "Asia/Tokyo", "code or settings"):
            assert text in html
        assert 'name="_save"' not in html
        assert staff.post(address, FORM).status_code == 403
        assert staff.post(address.replace("change", "delete"), {"post": "yes"}).status_code == 403
        assert staff.get(reverse("admin:taskq_django_periodictask_change", args=["code_3Agone"])).status_code == 302

    @pytest.mark.usefixtures("of_the_code")
    def test_the_next_run_of_an_interval_from_code_matches_the_scheduler(
        self, staff: Client, monkeypatch: pytest.MonkeyPatch, settings: Any
    ) -> None:
        settings.TIME_ZONE = "UTC"
        assert "unknown: no running scheduler reports it" in page(staff, "code_3Apoll/change/")
        first = datetime(2090, 1, 1, tzinfo=UTC)
        moments = {"next_run_at": first, "previous_run_at": first - timedelta(seconds=90)}
        shown = [type("Info", (), {**moments, "id": "poll", "is_removable": False})]
        monkeypatch.setattr(Inspector, "scheduler_entries", lambda _self: shown)

        html = page(staff, "code_3Apoll/change/")

        assert re.findall(r"<td>([^<]*)</td>", html[html.index("taskq-upcoming") :])[:2] == [
            "Jan. 1, 2090, 00:00 UTC",
            "Jan. 1, 2090, 00:01:30 UTC",
        ]

    def test_the_error_of_an_invalid_row_is_shown_in_its_line(self, staff: Client) -> None:
        """A row is invalid if it was written without the form, or if its task no longer exists."""
        make("gone", task=f"shop:{HOSTILE}")
        make(HOSTILE, expire_at=datetime(2020, 1, 1, tzinfo=UTC))
        make("off", enabled=False)

        html = page(staff)

        assert "unknown task" in html
        assert "never again" in html
        assert re.search(r'field-upcoming">disabled<', html)
        assert_escaped(html)

    def test_the_page_works_without_redis(self, staff: Client, of_the_code: None, settings: Any) -> None:
        settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
        make("in the table")

        html = page(staff)

        assert names(html) == ["in the table", "nightly", "poll"]
        assert "unknown: no running scheduler reports it" in html

    def test_the_number_of_queries_does_not_grow_with_the_rows(
        self, staff: Client, django_assert_num_queries: Any
    ) -> None:
        make("0")
        page(staff)
        with CaptureQueriesContext(connection) as captured:
            page(staff)
        for number in range(1, 40):
            make(str(number))

        with django_assert_num_queries(len(captured)):
            page(staff)


class TestActions:
    def test_rows_are_disabled_and_enabled(self, staff: Client) -> None:
        rows = [make(name) for name in "abc"]

        assert messages_of(act(staff, "disable", *rows[:2])) == ["2 periodic tasks were disabled."]
        assert messages_of(act(staff, "disable", *rows)) == ["3 periodic tasks were disabled."]
        assert not PeriodicTask.objects.filter(enabled=True).exists()
        assert messages_of(act(staff, "enable", rows[0], select_across="1")) == ["3 periodic tasks were enabled."]

        assert PeriodicTask.objects.filter(enabled=True).count() == 3
        assert [each.get_change_message() for each in LogEntry.objects.all()] == ["Changed Enabled."] * 8

    def test_run_now_asks_first_and_enqueues_with_arguments_and_options(self, staff: Client) -> None:
        rows = [make("a", queue="low"), make("off", enabled=False, kwargs={"name": "Bob"}), make("other")]

        html = act(staff, "run_now", *rows[:2])
        assert "Enqueue a task of each of 2 periodic tasks now" in html
        assert pending() == pending("low") == []
        html = act(staff, "run_now", *rows[:2], post="yes")

        assert messages_of(html) == ["2 tasks were enqueued."]
        assert (pending(), pending("low")) == ([b'{"name":"Bob"}'], [b'{"name":"Ada"}'])
        assert all(each.get_change_message().startswith("Run now, as task ") for each in LogEntry.objects.all())
        assert LogEntry.objects.count() == 2
        assert set(PeriodicTask.objects.values_list("total_runs", "last_run_at")) == {(0, None)}

    def test_run_now_enqueues_the_tasks_that_the_confirmation_listed(self, staff: Client) -> None:
        """The action affects only the chosen rows of the list, or all rows that match."""
        first, second = make("a"), make("b")
        html = act(staff, "run_now", first)
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html))
        staff.post(LIST, {**hidden})
        assert len(pending()) == 1

        html = act(staff, "run_now", second, select_across="1")
        hidden = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', html))
        staff.post(LIST, {**hidden})
        assert len(pending()) == 3

    @pytest.mark.parametrize("in_transactions", [False, True])
    def test_run_now_reports_rows_that_cannot_be_enqueued(
        self, staff: Client, settings: Any, monkeypatch: pytest.MonkeyPatch, in_transactions: bool
    ) -> None:
        """This holds even if each request is a transaction, which ends after the response is made."""
        monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", in_transactions)
        once, broken = make("once", options={"task_id": "one"}), make("broken", kwargs={})
        act(staff, "run_now", once, post="yes")

        html = act(staff, "run_now", once, broken, post="yes")
        assert [each.split(":")[:2] for each in messages_of(html)] == [
            ["1 was skipped", " broken"],
            ["1 was skipped", " once"],
        ]
        settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.01}
        assert len(messages_of(act(staff, "run_now", make("x"), make("y"), post="yes"))) == 2

    def test_an_action_on_a_deleted_row_shows_a_message(self, staff: Client) -> None:
        row = make()
        PeriodicTask.objects.filter(pk=row.pk).delete()
        make("another")

        assert messages_of(act(staff, "disable", row)) == ["Nothing was done: the selected rows do not exist any more."]
        assert "No rows match any more." in act(staff, "run_now", row)


class TestPermissions:
    def test_a_user_with_view_permission_only_sees_no_action(
        self, login: Callable[..., Client], of_the_code: None
    ) -> None:
        browser, row = login("view"), make()

        html = page(browser)
        assert names(html) == ["hello", "nightly", "poll"]
        assert '<select name="action"' not in html
        assert "Add periodic task" not in html
        assert 'name="_save"' not in page(browser, f"{row.pk}/change/")
        for action in ("disable", "run_now", "delete_selected"):
            act(browser, action, row, post="yes")
        assert PeriodicTask.objects.get().enabled
        assert pending() == []
        assert "switch/" not in page(browser, "code_3Anightly/change/")
        assert browser.post(f"{LIST}code_3Anightly/switch/").status_code == 403

    def test_the_permission_to_run_does_not_permit_changes(self, login: Callable[..., Client]) -> None:
        browser, row = login("view", "run"), make()

        html = page(browser)
        assert re.findall(
            r'<option value="(\w+)"', html[html.index('<select name="action"') :].partition("</select>")[0]
        ) == ["run_now"]
        act(browser, "run_now", row, post="yes")
        act(browser, "disable", row)

        assert len(pending()) == 1
        assert PeriodicTask.objects.get().enabled

    def test_the_permission_to_change_does_not_permit_run_now(self, login: Callable[..., Client]) -> None:
        browser, row = login("view", "change"), make()

        act(browser, "run_now", row, post="yes")
        act(browser, "disable", row)

        assert pending() == []
        assert not PeriodicTask.objects.get().enabled

    def test_users_without_permission_see_no_schedule(self, login: Callable[..., Client], of_the_code: None) -> None:
        assert login().get(f"{LIST}code_3Anightly/change/").status_code == 403


def test_a_time_near_the_maximum_year_is_formatted() -> None:
    """In Berlin this time is in the year 10000, which Python cannot represent."""
    assert "9999" in local_time(datetime(9999, 12, 31, 23, 30, tzinfo=UTC), ZoneInfo("Europe/Berlin"))
