"""Test pages of tasks and actions on tasks in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskInfo, TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_dashboard.pages import task_actions
from tests.browser.dashboard.people import Site, confirm, does_actions, expect_message, row, rows
from tests.browser.scene import Scene
from tests.browser.visiting import NARROW, same_document, stop_time
from tests.publishing import drain_beside_playwright, publish_task

pytestmark = pytest.mark.redis


def enqueue(taskq: TaskQ, *ids: str, name: str = "note", **options: Any) -> None:
    for task_id in ids:
        taskq.remote(name, task_id=task_id, **options).delay(word="w")


@pytest.mark.nightly
def test_each_state_has_its_list(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("queue?name=mail"))
    for state, column in (
        ("pending", "Retried"),
        ("scheduled", "Starts"),
        ("retry", "Next attempt"),
        ("archived", "Last error"),
        ("completed", "Deleted"),
        ("active", "Status"),
        ("aggregating", None),
    ):
        page.get_by_label("States").get_by_role("link", name=re.compile(f"^{state}")).click()
        expect(page.get_by_role("heading", name=re.compile(f"{state} tasks", re.IGNORECASE))).to_be_visible()
        if column and rows(page, "#tasks").count():
            expect(page.get_by_role("columnheader", name=column)).to_be_visible()


@pytest.mark.nightly
@pytest.mark.parametrize(
    "address", ["queue?name=mail&state=retry", "queue?name=mail&state=archived", "tasks", "failed"]
)
def test_actions_are_visible_without_scrolling_the_table(site: Site, page: Page, scene: Scene, address: str) -> None:
    """The table fits into a window of ordinary width, so it has no horizontal scroll bar."""
    page.goto(site.at(address))
    expect(rows(page, "#tasks").first).to_be_visible()

    beyond = page.locator("#tasks").evaluate(
        "table => table.closest('.scroll').scrollWidth - table.closest('.scroll').clientWidth"
    )
    assert beyond <= 0


@pytest.mark.nightly
def test_a_group_is_picked_and_its_tasks_listed(site: Site, page: Page, taskq: TaskQ) -> None:
    enqueue(taskq, "1", "2", aggregate="user:7")
    enqueue(taskq, "3", aggregate="user:8")
    page.goto(site.at("queue?name=default&state=aggregating"))
    page.get_by_role("link", name="user:7").click()
    expect(rows(page, "#tasks")).to_have_count(2)
    page.get_by_role("link", name="All groups").click()
    page.get_by_role("textbox", name="Group").fill("user:8")
    page.get_by_role("button", name="Show").click()
    expect(rows(page, "#tasks")).to_have_count(1)


@pytest.mark.nightly
def test_a_list_updates_except_while_rows_are_selected(site: Site, page: Page, taskq: TaskQ) -> None:
    enqueue(taskq, "first")
    page.goto(site.at("queue?name=default&state=pending"))
    with same_document(page):
        enqueue(taskq, "second")
        expect(rows(page, "#tasks")).to_have_count(2)
        page.get_by_label("Select first").check()
        enqueue(taskq, "third")
        page.get_by_label("Select first").uncheck()
        expect(rows(page, "#tasks")).to_have_count(3)


@does_actions("tasks-act")
def test_an_action_changes_one_task_of_a_list(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    enqueue(taskq, "1", "2")
    page.goto(site.at("queue?name=default&state=pending"))
    row(page, "2", "#tasks").get_by_role("button", name="Delete 2").click()
    expect(page.get_by_role("dialog")).to_contain_text("Delete the task “2” of the queue “default”?")
    page.get_by_role("dialog").get_by_role("link", name="Cancel").click()
    row(page, "2", "#tasks").get_by_role("button", name="Delete 2").click()
    confirm(page, "Delete")
    expect_message(page, "1 task was deleted.")
    expect(rows(page, "#tasks")).to_have_count(1)
    assert inspector.queue_info("default").size == 1


@does_actions("tasks-act")
def test_an_action_changes_selected_tasks(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    enqueue(taskq, "1", "2", "3")
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_label("Select all on this page").check()
    page.get_by_label("Select 2").uncheck()
    page.get_by_role("button", name="Retry later selected tasks").click()
    expect(page.get_by_role("dialog")).to_contain_text("Run 2 tasks at a later time?")
    page.get_by_role("dialog").get_by_label("Minutes from now").fill("30")
    confirm(page, "Retry later")
    expect_message(page, "2 tasks were put off.")
    expect(rows(page, "#tasks")).to_have_count(1)

    page.get_by_label("States").get_by_role("link", name=re.compile("^scheduled")).click()
    page.get_by_label("Select 1").check()
    page.wait_for_load_state()  # without its script a page uses a separate confirmation page
    page.get_by_role("button", name="Move selected tasks").click()
    page.get_by_role("dialog").get_by_label("To queue").select_option("low")
    confirm(page, "Move")
    expect_message(page, "1 task was moved.")
    assert inspector.task("low", "1").state is TaskState.SCHEDULED


@pytest.mark.nightly
def test_an_action_without_a_selection_does_nothing(site: Site, page: Page, taskq: TaskQ) -> None:
    enqueue(taskq, "1")
    site.visitors[0].expect_errors("400")
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Archive selected tasks").click()
    expect(page.locator("main")).to_contain_text("no task is selected")


@does_actions("tasks-act-all")
def test_an_action_on_all_tasks_runs_in_parts(
    site: Site, page: Page, taskq: TaskQ, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part shows the progress and starts the next part."""
    monkeypatch.setattr(task_actions, "time_left", lambda: lambda: False)
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(250))
    stop_time(page)  # the test determines when the next part starts
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Archive all").click()
    expect(page.get_by_role("dialog")).to_contain_text("Archive all 250 pending tasks of the queue “default”?")
    confirm(page, "Archive")
    for done in (100, 200):
        expect(page.get_by_role("status").filter(has_text=f"{done} tasks were archived.")).to_be_visible()
        expect(page.get_by_role("progressbar")).to_be_visible()
        page.wait_for_load_state()  # the countdown starts then
        page.clock.run_for(300)
    expect_message(page, "250 tasks were archived.")
    assert inspector.count("default", TaskState.ARCHIVED) == 250


@pytest.mark.nightly
@does_actions("tasks-act-all")
def test_without_javascript_the_user_starts_the_next_part(
    site: Site, taskq: TaskQ, inspector: Inspector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_actions, "time_left", lambda: lambda: False)
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(150))
    page = site.operator(java_script_enabled=False).new_page()
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Delete all").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("status")).to_contain_text("100 tasks were deleted.")
    assert inspector.queue_info("default").size == 50
    page.get_by_role("button", name="Continue").click()
    expect_message(page, "150 tasks were deleted.")


@pytest.mark.nightly
@does_actions("tasks-act")
def test_an_action_changes_selected_tasks_without_javascript(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    enqueue(taskq, "1", "2")
    page = site.operator(java_script_enabled=False).new_page()
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_label("Select 2").check()
    page.get_by_role("button", name="Archive selected tasks").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Archive?")
    page.get_by_role("button", name="Archive", exact=True).click()
    expect_message(page, "1 task was archived.")
    assert inspector.task("default", "2").state is TaskState.ARCHIVED


@pytest.mark.nightly
def test_a_search_covers_all_queues(site: Site, page: Page, taskq: TaskQ) -> None:
    enqueue(taskq, "1", name="mail:send", queue="low")
    enqueue(taskq, "2", name="note")
    page.goto(site.home)
    page.get_by_label("Pages", exact=True).get_by_role("link", name="Tasks").click()
    expect(rows(page, "#tasks")).to_have_count(2)
    page.get_by_label("Type", exact=True).fill("mail")
    page.get_by_role("button", name="Find").click()
    expect(rows(page, "#tasks")).to_have_count(1)
    expect(rows(page, "#tasks")).to_contain_text("mail:send")
    page.get_by_role("link", name="Clear").click()
    page.get_by_label(re.compile("^Part of id")).fill("2")
    page.keyboard.press("Enter")
    expect(rows(page, "#tasks")).to_contain_text("note")
    rows(page, "#tasks").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("note")


def test_a_search_fills_one_page_and_each_click_adds_another(
    site: Site, page: Page, taskq: TaskQ, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_core.views.tasks.SCAN_BYTES", 1)  # each request reads 100 tasks
    enqueue(taskq, *[f"w{number}" for number in range(25)], name="shop.tasks.refund")
    taskq.client.enqueue_many(taskq.remote("note").s(word="w") for _ in range(150))

    page.goto(site.at("tasks?text=refund"))

    expect(rows(page, "#tasks")).to_have_count(20)
    expect(page.locator("#found [role=status]")).to_contain_text("Read 170 of 175 tasks, 20 matched so far.")
    page.locator("#found .search a").last.click()
    expect(rows(page, "#tasks")).to_have_count(25)
    expect(page.locator("#found [role=status]")).to_have_text("All 175 tasks were read, 25 match.")

    page.goto(site.at("tasks?text=nothing"))

    expect(page.locator("#found [role=status]")).to_have_text("None of 175 tasks matches.")


def test_on_a_phone_the_tasks_of_a_queue_come_before_its_figures(site: Site, taskq: TaskQ) -> None:
    enqueue(taskq, "1")
    page = site.operator(viewport=NARROW).new_page()

    page.goto(site.at("queue?name=default&state=pending"))

    tasks, figures = page.locator("#tasks").bounding_box(), page.locator(".facts").bounding_box()
    assert tasks is not None
    assert figures is not None
    assert tasks["y"] + tasks["height"] < figures["y"]
    expect(page.locator("#tasks .c-pending time")).to_be_visible()


@pytest.mark.nightly
def test_failed_tasks_are_grouped_by_type_and_error(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.home)
    page.get_by_label("Pages", exact=True).get_by_role("link", name="Failed").click()
    expect(rows(page, "#failures").first).to_contain_text("ReadTimeout")
    count = rows(page, "#failures").first.get_by_role("link").text_content() or ""
    rows(page, "#failures").first.get_by_role("link").click()
    expect(rows(page, "#tasks")).to_have_count(int(count.split()[0]))
    page.get_by_label("Pages", exact=True).get_by_role("link", name="Failed").click()
    page.get_by_label("States").get_by_role("link", name=re.compile("^retry")).click()
    expect(page.locator("#failures")).to_contain_text("SMTPRecipientsRefused")


@does_actions("tasks-act")
def test_the_page_of_a_task_has_all_details_and_actions(
    site: Site, page: Page, scene: Scene, inspector: Inspector
) -> None:
    task_id = scene.failing.id
    page.goto(site.at(f"task?queue=mail&id={task_id}"))
    for text in (task_id, "3 of 25", "SMTPRecipientsRefused", "grace@example.com", "tenant", "4bf92f3577b34da6"):
        expect(page.locator("main")).to_contain_text(text)
    page.get_by_text("Traceback").first.click()
    expect(page.locator("details[open] pre")).to_contain_text("smtplib")

    page.get_by_role("button", name="Retry later").click()
    page.get_by_role("dialog").get_by_label("Or at, in UTC").fill("2100-01-02T03:04")
    confirm(page, "Retry later")
    expect_message(page, "1 task was put off.")
    expect(page.locator(".timeline")).to_contain_text("2100-01-02 03:04:00")
    for action, message, state in (
        ("Archive", "archived", "archived"),
        ("Run now", "runs now", "pending"),
        ("Archive", "archived", "archived"),
    ):
        page.get_by_role("button", name=action, exact=True).click()
        confirm(page, action)
        expect_message(page, message)
        expect(page.locator(".lines")).to_contain_text(state)
    page.get_by_role("button", name="Move", exact=True).click()
    page.get_by_role("dialog").get_by_label("To queue").select_option("reports")
    confirm(page, "Move")
    expect_message(page, "1 task was moved.")
    page.wait_for_url("**/task?queue=reports*")
    page.get_by_role("button", name="Delete", exact=True).click()
    confirm(page, "Delete")
    expect_message(page, "1 task was deleted.")
    page.wait_for_url("**/queue?name=reports*")


@does_actions("task-payload")
def test_a_payload_is_edited(site: Site, page: Page, scene: Scene, inspector: Inspector) -> None:
    task_id = scene.failing.id
    page.goto(site.at(f"task?queue=mail&id={task_id}"))
    page.get_by_role("link", name="Edit payload").click()
    field = page.get_by_label("Payload", exact=True)
    site.visitors[0].expect_errors("422")
    field.fill('{"order": "many"}')
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("order")
    expect(field).to_have_value('{"order": "many"}')
    field.fill('{"order": 7, "to": "ada@example.com"}')
    page.get_by_role("button", name="Save").click()
    expect_message(page, "The payload was changed.")
    record: Any = inspector.task("mail", task_id)
    assert record.payload == b'{"order":7,"to":"ada@example.com"}'


@pytest.mark.filterwarnings("ignore::taskq_core.QueueUnservedWarning")
@does_actions("task-enqueue")
def test_a_task_is_enqueued(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    page.goto(site.home)
    page.get_by_label("Pages", exact=True).get_by_role("link", name="Enqueue").click()
    page.get_by_role("link", name="mail:receipt").click()
    field = page.get_by_label("Arguments, as a JSON object")
    site.visitors[0].expect_errors("422")
    field.fill('{"order": "x", "to": "a@example.com"}')
    page.get_by_role("button", name="Enqueue").click()
    expect(page.get_by_role("alert")).to_contain_text("order")
    expect(field).to_have_value('{"order": "x", "to": "a@example.com"}')
    field.fill('{"order": 1, "to": "a@example.com"}')
    page.get_by_label("Run after, in seconds").fill("60")
    page.get_by_role("button", name="Enqueue").click()
    expect_message(page, "The task was enqueued to the queue “mail”.")
    expect(page.get_by_role("heading", level=1)).to_have_text("mail:receipt")
    assert inspector.count("mail", TaskState.SCHEDULED) == 1
    page.get_by_role("link", name="Enqueue another").click()
    expect(field).to_have_value(re.compile("a@example.com"))


@pytest.mark.nightly
def test_an_id_is_copied(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    """The check mark stays for a moment, also while rows appear and disappear."""
    enqueue(taskq, "1", "2", "3")
    visitor = site.operator()
    visitor.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page = visitor.new_page()
    stop_time(page)  # the test determines when the check mark disappears
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_role("button", name="Copy the id 2").click()
    expect(page.locator(".copied")).to_have_accessible_name("Copy the id 2")
    assert page.evaluate("navigator.clipboard.readText()") == "2"
    enqueue(taskq, "4")
    for gone in ("1", "3"):
        inspector.delete_task("default", gone)
        expect(page.get_by_role("button", name=f"Copy the id {gone}")).to_have_count(0)
    expect(page.get_by_role("button", name="Copy the id 4")).to_be_visible()
    expect(page.locator(".copied")).to_have_accessible_name("Copy the id 2")
    page.clock.run_for(1_500)
    expect(page.locator(".copied")).to_have_count(0)


@pytest.mark.nightly
def test_viewers_see_tasks_without_payloads_and_without_buttons(site: Site, scene: Scene) -> None:
    page = site.viewer().new_page()
    for address in ("queue?name=mail&state=retry", "tasks", "failed", f"task?queue=mail&id={scene.failing.id}"):
        page.goto(site.at(address))
        expect(page.locator("main")).to_contain_text("mail")
        expect(page.locator("main form[method=post], main [data-dialog], main input[type=checkbox]")).to_have_count(0)
        expect(page.locator("main")).not_to_contain_text('"order"')


@pytest.mark.nightly
@does_actions("tasks-act")
def test_a_list_is_used_with_the_keyboard(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    enqueue(taskq, "1")
    page = site.operator(viewport=NARROW).new_page()
    page.goto(site.at("queue?name=default&state=pending"))
    page.get_by_label("Select 1").focus()
    page.keyboard.press("Space")
    expect(page.get_by_label("Select 1")).to_be_checked()
    page.get_by_role("button", name="Archive selected tasks").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_contain_text("Archive the task “1”")
    page.get_by_role("dialog").get_by_role("button", name="Archive").focus()
    page.keyboard.press("Enter")
    expect_message(page, "1 task was archived.")
    assert inspector.task("default", "1").state is TaskState.ARCHIVED


@does_actions("task-signal")
def test_a_task_that_waits_for_a_signal_is_approved(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    publish_task(taskq).using(task_id="publish-7").delay(photo_id=7)
    drain_beside_playwright(taskq)

    page.goto(site.at("task?queue=default&id=publish-7"))
    expect(page.get_by_text("waiting for review")).to_be_visible()
    page.get_by_role("button", name="Approve").click()
    confirm(page, "Approve")
    expect_message(page, "The signal “review” was sent.")
    drain_beside_playwright(taskq)
    expect(page.locator("#steps")).to_contain_text("review#2")
    page.get_by_role("button", name="Send a signal").click()
    page.get_by_label("Value as JSON").fill('{"approved": false}')
    confirm(page, "Send a signal")
    expect_message(page, "The signal “review” was sent.")

    drain_beside_playwright(taskq)
    done = inspector.task("default", "publish-7")
    assert isinstance(done, TaskInfo)
    assert done.result == b"[true,false]"
