"""Workflows with their graphs in Django's admin, in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect

from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from taskq_django import taskq
from tests.browser.admin.people import WORKFLOWS, Site, choose, confirm, expect_message, row, workflow_page
from tests.browser.admin.scene import Scene, registered_tasks
from tests.browser.visiting import NARROW, same_document, stop_time
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture
def scene(redis: RedisServer, settings: Any) -> Any:
    """Sample data with a running workflow."""
    with registered_tasks(taskq):
        yield Scene(redis, settings)


def steps_of(page: Page, region: str = "Steps") -> Locator:
    return page.get_by_role("region", name=region, exact=True).locator("tbody tr")


@pytest.mark.nightly
def test_the_list_links_to_steps_members_and_tasks(page: Page, scene: Scene) -> None:
    workflow = scene.workflow
    page.goto("/admin/")
    page.get_by_role("link", name="Workflows", exact=True).click()
    expect(row(page, "order-48217")).to_contain_text("11 of 18, 2 failed")
    page.locator("#searchbar").fill("48217")
    page.locator("#searchbar").press("Enter")
    row(page, "order-48217").get_by_role("link").first.click()

    expect(page.get_by_role("img", name=re.compile("^Graph of the workflow: 18 steps, of which"))).to_be_visible()
    expect(page.locator("svg.taskq-flow rect.taskq-box")).to_have_count(7)
    expect(steps_of(page)).to_have_count(7)
    expect(steps_of(page).filter(has_text="did not answer within 10 s")).to_contain_text("charge")
    page.get_by_role("link", name="pictures", exact=True).click()
    expect(steps_of(page, "Members")).to_have_count(12)
    expect(steps_of(page, "Members").nth(3)).to_contain_text("image file is truncated")
    expect(page.locator("svg.taskq-flow rect.taskq-box-shown")).to_have_count(1)
    steps_of(page).filter(has_text="reserve").first.get_by_role("link", name="orders:fulfil").click()
    page.wait_for_url(f"**{workflow.id}.reserve/change/")
    page.get_by_role("link", name=workflow.id, exact=True).click()
    page.wait_for_url(f"**{workflow_page(workflow)}")


@pytest.mark.nightly
def test_the_graph_has_boxes_lines_and_colours_and_needs_no_inline_style(page: Page, scene: Scene) -> None:
    page.goto(workflow_page(scene.workflow))

    boxes: list[Any] = [box.bounding_box() for box in page.locator("svg.taskq-flow rect.taskq-box").all()]
    assert len({(box["x"], box["y"]) for box in boxes}) == 7
    assert min(box["width"] for box in boxes) > 150
    lines = page.locator("svg.taskq-flow .taskq-edge").all()
    assert "none" not in {line.evaluate("line => getComputedStyle(line).stroke") for line in lines}
    fills = {
        state: page.locator(f"svg.taskq-flow .taskq-step-{state}").first.evaluate("each => getComputedStyle(each).fill")
        for state in ("succeeded", "failed", "started", "waiting")
    }
    assert len(set(fills.values())) == 4
    assert page.locator("#taskq-graph [style]").count() == 0


def test_the_page_refreshes_and_keeps_scroll_positions(site: Site, scene: Scene) -> None:
    page = site.operator(viewport=NARROW).new_page()
    stop_time(page)
    page.goto(workflow_page(scene.workflow))
    expect(page.locator(".field-state .readonly")).to_contain_text("running")
    graph = page.get_by_role("region", name="Graph")
    expect(page.locator(".field-graph label")).to_be_hidden()  # the heading says the same
    expect(page.locator(".field-steps label")).to_be_hidden()
    graph.evaluate("each => each.scrollTo(200, 0)")

    with same_document(page):
        scene.workflow.cancel()
        with page.expect_response(lambda response: response.request.resource_type == "fetch"):
            page.clock.run_for(5_000)
        expect(page.locator(".field-state .readonly")).to_contain_text("cancelled")
        expect(page.locator("svg.taskq-flow .taskq-step-started")).to_have_count(0)
        expect(page.locator(".field-ended_at .readonly")).to_contain_text("ago")
        expect(page.locator(".taskq-action")).to_have_count(0)
        assert graph.evaluate("each => each.scrollLeft") == 200


def test_a_workflow_is_cancelled_once_confirmed(page: Page, scene: Scene) -> None:
    page.goto(workflow_page(scene.workflow))
    page.get_by_role("button", name="Cancel the workflow").click()
    expect(page.locator("#content-main")).to_contain_text("Cancel 1 workflow? No further step starts")
    assert scene.workflow.refresh().state == "running"
    page.get_by_role("button", name="No, take me back").click()
    page.wait_for_url(f"**{workflow_page(scene.workflow)}")

    page.goto(WORKFLOWS)
    choose(page, "Cancel", "order-48217")
    confirm(page, "Cancel the workflow")

    expect_message(page, "1 workflow was cancelled.")
    expect(row(page, "order-48217")).to_contain_text("cancelled")
    assert scene.workflow.refresh().state == "cancelled"


@pytest.mark.nightly
def test_failed_steps_are_retried(page: Page, redis: RedisServer, inspector: Inspector) -> None:
    workflow = (taskq.remote("first").si() | taskq.remote("second").si()).delay()
    (task,) = inspector.tasks("default", TaskState.PENDING).tasks
    inspector.archive_task(task.queue, task.id)
    key = taskq.runtime.keys.queue("default").workflow(workflow.id)
    redis.client.hset(key, mapping={"s0": "f", "bad": 1})

    page.goto(workflow_page(workflow))
    page.get_by_role("button", name="Retry failed steps").click()
    confirm(page, "Retry failed steps")

    expect_message(page, "1 step runs again.")
    assert inspector.count("default", TaskState.PENDING) == 1
