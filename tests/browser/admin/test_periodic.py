"""Test periodic tasks in a real browser: create, edit, enable, disable and run them, and show hostile ones as text."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core.inspector import Inspector
from taskq_django.models import PeriodicTask
from tests.browser.admin.people import PERIODIC, Site, choose, confirm, expect_message, row, rows
from tests.browser.admin.test_hostile import hostile
from tests.browser.visiting import NARROW, width_beyond

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


def make(name: str, **given: Any) -> PeriodicTask:
    standard = {"task": "shop:greet", "kwargs": {"name": "Ada"}, "cron": "0 3 * * *"}
    return PeriodicTask.objects.create(name=name, **{**standard, **given})


@pytest.mark.nightly
def test_a_periodic_task_is_created_and_shows_its_next_firing(page: Page) -> None:
    page.goto(PERIODIC)
    page.locator("#content .addlink").click()
    page.locator("[name=name]").fill("morning greeting")
    page.locator("[name=task]").fill("shop:gret")
    page.locator("[name=kwargs]").fill('{"name": "Ada"}')
    page.locator("[name=cron]").fill("30 25 * * MON-FRI")
    page.locator("[name=time_zone]").fill("Europe/Berlin")
    page.locator("[name=_continue]").click()
    expect(page.locator(".field-cron .errorlist")).to_contain_text("25")
    expect(page.locator(".field-task .errorlist")).to_contain_text("shop:greet")

    page.locator("[name=task]").fill("shop:greet")
    page.locator("[name=cron]").fill("30 4 * * MON-FRI")
    page.locator("[name=_continue]").click()
    expect_message(page, "was added successfully")
    firings = page.locator("table.taskq-upcoming tbody tr")
    expect(firings).to_have_count(5)
    for each in firings.all():
        expect(each).to_contain_text("04:30 CE")

    page.get_by_role("link", name="Periodic tasks").first.click()
    listed = row(page, "morning greeting")
    listed.locator("summary").click()
    expect(listed.locator("table.taskq-upcoming tbody tr")).to_have_count(5)
    assert PeriodicTask.objects.get().cron == "30 4 * * MON-FRI"


def test_periodic_tasks_are_disabled_enabled_and_run_now(page: Page, inspector: Inspector) -> None:
    make("hello")
    make("other")

    page.goto(PERIODIC)
    choose(page, "Disable", "hello")
    expect_message(page, "1 periodic task was disabled.")
    expect(row(page, "hello")).to_contain_text("disabled")
    assert list(PeriodicTask.objects.filter(enabled=True).values_list("name", flat=True)) == ["other"]

    choose(page, "Enable", "hello")
    expect_message(page, "1 periodic task was enabled.")
    assert PeriodicTask.objects.filter(enabled=True).count() == 2

    choose(page, "now", "hello")
    confirm(page, "Run now")
    expect_message(page, "1 task was enqueued.")
    assert [task.payload for task in inspector.tasks().tasks] == [b'{"name":"Ada"}']  # type: ignore[union-attr]  # it is readable


@pytest.mark.nightly
def test_periodic_tasks_of_the_settings_are_listed_and_cannot_be_edited(page: Page, settings: Any) -> None:
    settings.TASKQ = {
        **settings.TASKQ,
        "SCHEDULE": {"nightly": {"task": "shop:greet", "cron": "30 3 * * *", "kwargs": {"name": "Ada"}}},
    }
    make("hello")

    page.goto(PERIODIC)
    expect(rows(page)).to_have_count(2)
    expect(row(page, "nightly").locator(".action-select")).to_have_count(0)
    row(page, "nightly").get_by_role("link").first.click()
    expect(page.locator("#content")).to_contain_text("30 3 * * *")
    expect(page.locator("#content [type=submit][name], #content .deletelink")).to_have_count(0)


@pytest.mark.nightly
def test_a_user_who_may_only_view_sees_no_action(site: Site, redis: Any) -> None:
    obj = make("hello")
    page = site.member("view_periodictask").new_page()

    for path in (PERIODIC, f"{PERIODIC}{obj.pk}/change/"):
        page.goto(path)
        expect(page.locator("#content")).to_contain_text("hello")
        expect(page.locator(".actions select, .action-select, .addlink, .deletelink")).to_have_count(0)
        expect(page.locator("#content-main [type=submit][name]")).to_have_count(0)


@pytest.mark.nightly
def test_a_periodic_task_that_another_user_deleted_is_reported(page: Page) -> None:
    obj = make("hello")
    page.goto(f"{PERIODIC}{obj.pk}/change/")
    PeriodicTask.objects.all().delete()

    page.locator("[name=description]").fill("more")
    page.get_by_role("button", name="Save", exact=True).click()

    expect(page.locator(".messagelist")).to_be_visible()
    assert not PeriodicTask.objects.exists()


@pytest.mark.nightly
def test_hostile_periodic_tasks_are_shown_as_text(page: Page) -> None:
    """The rows are written with SQL, because the form would refuse them."""
    texts = {name: hostile(name)[:200] for name in ("name", "description")}
    make(**texts, kwargs={hostile("key"): hostile("value")}, options={hostile("option"): hostile("set")})
    make("second", task=hostile("task"), cron=hostile("cron")[:256], queue=hostile("queue")[:256])
    make("third", cron="", interval=timedelta(seconds=90), time_zone=hostile("zone")[:64])

    page.goto(PERIODIC)
    expect(rows(page)).to_have_count(3)
    expect(row(page, "name</scrip")).to_have_count(1)
    for obj in PeriodicTask.objects.all():
        page.goto(f"{PERIODIC}{obj.pk}/change/")
        expect(page.locator("[name=kwargs]")).to_be_visible()
        page.locator("[name=_continue]").click()
        expect(page.locator(".errornote, .messagelist").first).to_be_visible()
    page.goto(PERIODIC)
    choose(page, "now", everything=True)
    confirm(page, "Run now")
    expect(page.locator(".messagelist")).to_be_visible()


@pytest.mark.nightly
def test_list_and_form_fit_a_narrow_screen(site: Site, redis: Any) -> None:
    obj = make("a-name-without-a-place-to-break-" * 5, time_zone="Asia/Tokyo")
    page = site.operator(viewport=NARROW).new_page()

    for path in (PERIODIC, f"{PERIODIC}add/", f"{PERIODIC}{obj.pk}/change/"):
        page.goto(path)
        expect(page.locator("#content")).to_be_visible()
        assert width_beyond(page) == 0, path


def test_all_columns_fit_into_1280_pixels(page: Page) -> None:
    """The last columns say whether a periodic task is enabled and where it is defined."""
    for number in range(3):
        name = f"send the newsletter of customer {number} on work days"
        now = datetime.now(UTC)
        make(name, cron="30 4 * * MON-FRI", time_zone="America/New_York", total_runs=12_345, last_run_at=now)

    page.set_viewport_size({"width": 1280, "height": 800})
    page.goto(PERIODIC)

    expect(rows(page)).to_have_count(3)
    sizes = page.locator(".results").evaluate("each => [each.scrollWidth, each.clientWidth]")
    assert sizes[0] <= sizes[1]
    assert width_beyond(page) == 0
    expect(row(page, "customer 0").locator(".field-source")).to_be_in_viewport(ratio=1)
