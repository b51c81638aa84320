"""Test actions on tasks in a real browser: on one, on several, on all that match, and by two users at the same time."""

import asyncio
from datetime import timedelta
from threading import Event

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskState
from taskq_core.inspector import Inspector
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_django import taskq
from tests.browser.admin.people import TASKS, Site, choose, confirm, enqueue, expect_message, page_of, row, rows
from tests.browser.visiting import stop_time
from tests.publishing import drain_beside_playwright, publish_task
from tests.redis_server import RedisServer
from tests.taskq_core.worker.conftest import receives_cancels, until_blocking
from tests.taskq_django.admin_pages import payload_of, put, state_of

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


def test_scheduled_tasks_are_run_now(page: Page, redis: RedisServer) -> None:
    later = taskq.remote("report:build", run_after=timedelta(hours=1)).delay()
    kept = taskq.remote("report:send", run_after=timedelta(hours=1)).delay()

    page.goto(f"{TASKS}?state=scheduled")
    choose(page, "now", "report:build")
    expect(page.locator("#content-main")).to_contain_text("Run 1 task now?")
    confirm(page, "Run now")

    expect_message(page, "1 task runs now.")
    expect(rows(page)).to_have_count(1)
    assert (state_of(redis, later), state_of(redis, kept)) == ("pending", "scheduled")


def test_a_task_that_waits_for_a_signal_is_approved(
    page: Page, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(taskq, "_tasks", {})
    handle = publish_task(taskq).delay(photo_id=7)
    drain_beside_playwright(taskq)

    page.goto(page_of(handle))
    page.get_by_role("button", name="Approve").click()
    confirm(page, "Approve")
    expect_message(page, "1 signal was sent.")
    drain_beside_playwright(taskq)
    page.goto(TASKS)
    choose(page, "Send a signal", "photos:publish")
    page.get_by_label("Value").fill('{"approved": false}')
    confirm(page, "Send a signal")
    expect_message(page, "1 signal was sent.")

    drain_beside_playwright(taskq)
    assert inspector.task("default", handle.id).result == b"[true,false]"


@pytest.mark.nightly
def test_an_action_that_is_not_confirmed_does_nothing(page: Page, redis: RedisServer) -> None:
    handle = enqueue()

    page.goto(f"{TASKS}?queue=default")
    choose(page, "Delete", "email:deliver")
    page.get_by_role("button", name="No, take me back").click()

    page.wait_for_url(f"**{TASKS}?queue=default")
    expect(rows(page)).to_have_count(1)
    assert state_of(redis, handle) == "pending"


@pytest.mark.nightly
def test_tasks_are_archived(page: Page, redis: RedisServer) -> None:
    handle = enqueue()
    enqueue("image:resize")

    page.goto(TASKS)
    choose(page, "Archive", "email:deliver")
    confirm(page, "Archive")

    expect_message(page, "1 task was archived.")
    expect(row(page, "email:deliver")).to_contain_text("archived")
    expect(row(page, "image:resize")).to_contain_text("pending")
    assert state_of(redis, handle) == "archived"


def test_all_matching_tasks_are_deleted_also_on_other_pages(page: Page, inspector: Inspector) -> None:
    for _ in range(60):
        enqueue(queue="low")
    enqueue("kept")

    page.goto(f"{TASKS}?queue=low")
    choose(page, "Delete", everything=True)
    expect(page.locator("#content-main")).to_contain_text("Delete 60 tasks?")
    confirm(page, "Delete")

    expect_message(page, "60 tasks were deleted.")
    assert [task.name for task in inspector.tasks().tasks] == ["kept"]  # type: ignore[union-attr]  # it is readable


def test_tasks_are_moved_to_another_queue(page: Page, redis: RedisServer) -> None:
    handle = enqueue()
    enqueue("image:resize", queue="low")

    page.goto(TASKS)
    choose(page, "Move", "email:deliver")
    confirm(page, "Move")
    expect(page.locator(".errorlist")).to_contain_text("This field is required.")
    page.get_by_label("To queue").select_option("low")
    confirm(page, "Move")

    expect_message(page, "1 task was moved.")
    expect(row(page, "email:deliver")).to_contain_text("low")
    assert state_of(redis, handle, queue="low") == "pending"


@pytest.mark.nightly
def test_tasks_are_postponed(page: Page, inspector: Inspector) -> None:
    enqueue()

    page.goto(TASKS)
    choose(page, "later", "email:deliver")
    confirm(page, "Retry later")
    expect(page.locator(".errorlist").first).to_contain_text("Enter either the minutes or a time.")
    page.get_by_label("Minutes from now").fill("90")
    confirm(page, "Retry later")

    expect_message(page, "1 task was put off.")
    expect(row(page, "email:deliver")).to_contain_text("in 1 hour")
    assert [info.sizes[TaskState.SCHEDULED] for info in inspector.queue_infos()] == [1]


@pytest.mark.nightly
def test_an_archived_task_is_run_again_from_its_page_and_the_history_shows_it(page: Page, redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "archived", error_msg="SMTPError: no such mailbox")

    page.goto(page_of(handle))
    expect(page.locator("#content")).to_contain_text("SMTPError: no such mailbox")
    page.get_by_role("button", name="Run now").click()
    confirm(page, "Run now")

    page.wait_for_url(f"**{page_of(handle)}")
    expect_message(page, "1 task runs now.")
    assert state_of(redis, handle) == "pending"
    page.get_by_role("link", name="History").click()
    expect(page.locator("#change-history")).to_contain_text("ada")
    expect(page.locator("#change-history")).to_contain_text("Run now.")


def test_the_arguments_of_a_waiting_task_are_edited(page: Page, redis: RedisServer) -> None:
    handle = enqueue(to="user@example.com")

    page.goto(page_of(handle))
    text = page.get_by_label("Arguments")
    expect(text).to_have_value('{\n  "to": "user@example.com"\n}')
    text.fill('{"to": "other@example.com"')
    page.get_by_role("button", name="Save and continue editing").click()
    expect(page.locator(".errorlist").last).to_contain_text("The payload is not JSON")
    expect(text).to_have_value('{"to": "other@example.com"')
    assert payload_of(redis, handle) == b'{"to":"user@example.com"}'

    text.fill('{"to": "other@example.com"}')
    page.get_by_role("button", name="Save and continue editing").click()
    expect_message(page, "was changed successfully")
    assert payload_of(redis, handle) == b'{"to":"other@example.com"}'


def test_a_task_that_runs_is_cancelled(page: Page, redis: RedisServer, inspector: Inspector) -> None:
    begun = Event()

    @taskq.task(name="oven:smoulder", max_retry=0)
    async def smoulder() -> None:
        begun.set()
        await asyncio.sleep(600)

    handle = smoulder.delay()
    worker = BackgroundWorker(lambda: Worker(taskq, WorkerConfig(queues={"default": 1})))
    worker.start()
    try:
        assert begun.wait(60)
        until_blocking(lambda: receives_cancels(redis))
        page.goto(page_of(handle))
        page.get_by_role("button", name="Cancel", exact=True).click()
        confirm(page, "Cancel")
        expect_message(page, "The worker of 1 task was asked to cancel it.")
        until_blocking(lambda: inspector.task("default", handle.id).state is not TaskState.ACTIVE)
    finally:
        assert worker.stop(60)
        taskq._tasks.pop("oven:smoulder")

    page.goto(page_of(handle))
    expect(page.locator("#content .field-task_state")).not_to_contain_text("active")


# --- stale pages and two at once --------------------------------------------------------------------------------------


@pytest.mark.nightly
def test_a_task_that_was_deleted_before_it_is_selected_is_reported(page: Page, inspector: Inspector) -> None:
    handle = enqueue()

    stop_time(page)  # or the row goes before it is chosen
    page.goto(TASKS)
    inspector.delete_task(handle.queue, handle.id)
    choose(page, "Archive", "email:deliver")

    expect(page.locator("#content")).to_contain_text("No rows match any more.")
    expect(page.get_by_role("button", name="Archive", exact=True)).to_have_count(0)


@pytest.mark.nightly
def test_a_task_that_was_deleted_before_the_confirmation_is_reported(page: Page, inspector: Inspector) -> None:
    gone, kept = enqueue(), enqueue("image:resize")

    page.goto(TASKS)
    choose(page, "Archive", "email:deliver", "image:resize")
    inspector.delete_task(gone.queue, gone.id)
    confirm(page, "Archive")

    expect_message(page, "1 task was archived.")
    expect_message(page, "Skipped: 1 no longer exists.")
    assert inspector.task(kept.queue, kept.id).state is TaskState.ARCHIVED


@pytest.mark.nightly
def test_the_page_of_a_deleted_task_redirects_to_the_list(page: Page, inspector: Inspector) -> None:
    handle = enqueue()
    enqueue("image:resize")

    stop_time(page)  # or the row goes before it is followed
    page.goto(TASKS)
    inspector.delete_task(handle.queue, handle.id)
    row(page, "email:deliver").get_by_role("link").first.click()

    expect_message(page, "does not exist any more")
    expect(rows(page)).to_have_count(1)


@pytest.mark.nightly
def test_the_second_of_two_operators_sees_what_the_first_has_done(site: Site, redis: RedisServer) -> None:
    handle = taskq.remote("report:build", run_after=timedelta(hours=1)).delay()
    ada, bob = site.operator("ada").new_page(), site.operator("bob").new_page()

    for page in (ada, bob):
        page.goto(TASKS)
        choose(page, "Archive" if page is ada else "now", "report:build")
    confirm(ada, "Archive")
    expect_message(ada, "1 task was archived.")
    confirm(bob, "Run now")

    expect_message(bob, "Skipped: 1 is now archived.")
    assert state_of(redis, handle) == "archived"


@pytest.mark.nightly
def test_the_second_of_two_editors_keeps_the_input_and_changes_nothing(site: Site, redis: RedisServer) -> None:
    handle = enqueue(to="first@example.com")
    ada, bob = site.operator("ada").new_page(), site.operator("bob").new_page()

    for page, name in ((ada, "ada"), (bob, "bob")):
        page.goto(page_of(handle))
        page.get_by_label("Arguments").fill(f'{{"to": "{name}@example.com"}}')
    ada.get_by_role("button", name="Save", exact=True).click()
    expect_message(ada, "was changed successfully")
    bob.get_by_role("button", name="Save", exact=True).click()

    expect(bob.locator(".errornote, .errorlist").first).to_be_visible()
    expect(bob.locator("#content")).to_contain_text("The arguments have changed since this page was opened")
    expect(bob.get_by_label("Arguments")).to_have_value('{"to": "bob@example.com"}')
    assert payload_of(redis, handle) == b'{"to":"ada@example.com"}'
