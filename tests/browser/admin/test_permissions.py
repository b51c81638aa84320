"""Test that a user who may only view sees no actions, and that forged actions of this user are refused."""

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskState
from taskq_core.inspector import Inspector
from taskq_core.workflow import group
from taskq_django import taskq
from tests.browser.admin.people import (
    LOOKING,
    OUTBOX,
    QUEUES,
    TASKS,
    WORKERS,
    WORKFLOWS,
    Site,
    enqueue,
    page_of,
    rows,
    workflow_page,
)
from tests.browser.visiting import Visitor
from tests.redis_server import RedisServer
from tests.taskq_django.admin_pages import key, put, state_of

pytestmark = [
    pytest.mark.redis,
    pytest.mark.django_db(transaction=True, databases=["default", "other"]),
    pytest.mark.nightly,
]

ACTIONS = ".actions select, .action-select, #action-toggle, .taskq-action, .addlink, .deletelink, [type=submit][name]"
"""CSS selector of the elements that start an action, on any page of the admin."""


@pytest.fixture
def viewer(site: Site) -> Visitor:
    return site.member(*LOOKING)


def post(page: Page, path: str, **data: str) -> int:
    """Send a forged form with the CSRF token of this browser. Return the status of the response."""
    token = next(each["value"] for each in page.context.cookies() if each["name"] == "csrftoken")
    answer = page.request.post(path, form={"csrfmiddlewaretoken": token, **data}, headers={"Referer": page.url})
    return answer.status


def test_a_viewer_sees_no_action(viewer: Visitor, redis: RedisServer) -> None:
    handle = enqueue(to="user@example.com")
    put(redis, handle, "archived", error_msg="SMTPError: no such mailbox")
    page = viewer.new_page()

    workflow = group([taskq.remote("note").si()], name="notes").delay()
    whole = workflow_page(workflow)
    own = f"{QUEUES}default/change/"
    others = (WORKERS, OUTBOX, WORKFLOWS, whole, f"{whole}?step=notes", page_of(handle), "/admin/")
    for path in (TASKS, QUEUES, own, *others):
        page.goto(path)
        expect(page.locator("#content")).to_be_visible()
        expect(page.locator(ACTIONS)).to_have_count(0)
    page.goto(TASKS)
    expect(rows(page)).to_have_count(2)


def test_an_operator_sees_actions(site: Site) -> None:
    """Without this, the test above could not fail."""
    handle = enqueue(to="user@example.com")
    page = site.operator().new_page()

    workflow = group([taskq.remote("note").si()], name="notes").delay()
    for path in (TASKS, QUEUES, WORKFLOWS, workflow_page(workflow), page_of(handle)):
        page.goto(path)
        expect(page.locator(ACTIONS)).not_to_have_count(0)


@pytest.mark.parametrize(
    "action", ["run_now", "retry_later", "archive_tasks", "cancel_tasks", "move_tasks", "delete_selected"]
)
def test_a_forged_action_of_a_viewer_is_refused(viewer: Visitor, redis: RedisServer, action: str) -> None:
    handle = enqueue()
    page = viewer.new_page()
    page.goto(TASKS)

    chosen = {"action": action, "_selected_action": key(handle), "post": "yes", "select_across": "0", "index": "0"}
    assert post(page, TASKS, **chosen) == 200  # the list; Django ignores actions of a user who has none
    own_page = page_of(handle).removesuffix("change/")
    assert post(page, f"{own_page}act/{action}/", post="yes", action=action) == 403
    assert post(page, f"{own_page}delete/", post="yes") == 403
    assert post(page, page_of(handle), arguments="{}", shown="", _save="Save") == 403
    assert state_of(redis, handle) == "pending"


@pytest.mark.parametrize("action", ["pause", "resume", "empty", "delete_selected"])
def test_a_forged_action_on_a_queue_is_refused(viewer: Visitor, inspector: Inspector, action: str) -> None:
    enqueue()
    page = viewer.new_page()
    page.goto(QUEUES)

    chosen = {"action": action, "_selected_action": "default", "post": "yes", "select_across": "0", "index": "0"}
    assert post(page, QUEUES, **chosen, states="pending", force="on") == 200  # the list, as above
    assert post(page, f"{QUEUES}default/act/{action}/", post="yes", action=action, states="pending", force="on") == 403
    (info,) = inspector.queue_infos()
    assert (info.sizes[TaskState.PENDING], info.is_paused) == (1, False)


def test_a_user_who_may_only_run_tasks_sees_only_that_action(site: Site, redis: RedisServer) -> None:
    handle = enqueue()
    put(redis, handle, "archived")
    page = site.member("view_task", "run_task").new_page()

    page.goto(TASKS)
    expect(page.locator("select[name=action] option:not([value=''])")).to_have_text(
        ["Run selected tasks now", "Cancel selected tasks"]
    )
    page.goto(page_of(handle))
    expect(page.locator(".taskq-action")).to_have_text(["Run now"])
    expect(page.locator("[type=submit][name]")).to_have_count(0)


def test_a_form_without_a_csrf_token_does_nothing(site: Site, redis: RedisServer) -> None:
    handle = enqueue()
    page = site.operator().new_page()
    page.goto(TASKS)

    chosen = {"action": "delete_selected", "_selected_action": key(handle), "post": "yes", "select_across": "0"}
    assert page.request.post(TASKS, form=chosen).status == 403
    assert state_of(redis, handle) == "pending"
