"""Test workflows and their graphs in a real browser."""

import re
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_core.wire import TaskState
from tests.browser.dashboard.people import Site, confirm, does_actions, expect_message, row, rows
from tests.browser.scene import Scene
from tests.browser.visiting import same_document
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


@pytest.mark.nightly
def test_a_queue_links_to_workflows_and_their_steps(site: Site, page: Page, scene: Scene) -> None:
    workflow = scene.workflow
    page.goto(site.at("queue?name=default"))
    page.get_by_role("link", name="Workflows", exact=True).click()
    expect(row(page, "order-48217", "#workflows")).to_contain_text("running")
    page.get_by_role("link", name=workflow.id).click()

    expect(page.get_by_role("heading", level=1)).to_contain_text("order-48217 running")
    expect(page.get_by_role("img", name=re.compile("^Graph of the workflow: 18 steps"))).to_be_visible()
    expect(page.locator("svg.flow rect.box")).to_have_count(7)
    expect(rows(page, "#steps")).to_have_count(7)
    expect(row(page, "pictures", "#steps").first).to_contain_text("8 of 12, 1 failed")
    expect(row(page, "charge", "#steps").first).to_contain_text("did not answer within 10 s")
    row(page, "pictures", "#steps").first.get_by_role("link", name="pictures", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("pictures")
    expect(page.locator("#step-state")).to_contain_text("8 of 12, 1 failed")
    expect(rows(page, "#members")).to_have_count(12)
    expect(row(page, "timeout", "#members")).to_contain_text("failed")
    address = re.compile(f"^task.*{workflow.id}.pictures.11$")
    expect(page.get_by_role("link", name=f"{workflow.id}.pictures.11")).to_have_attribute("href", address)
    page.get_by_role("link", name="order-48217").first.click()
    row(page, "reserve", "#steps").first.get_by_role("link", name="reserve", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text("reserve")
    page.get_by_role("link", name="orders:fulfil").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("orders:fulfil")
    page.get_by_role("link", name=workflow.id, exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("order-48217")


@pytest.mark.nightly
def test_the_graph_is_drawn_with_boxes_lines_and_colours(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at(f"workflow?queue=default&id={scene.workflow.id}"))

    boxes: list[Any] = [box.bounding_box() for box in page.locator("svg.flow rect.box").all()]
    assert len({(box["x"], box["y"]) for box in boxes}) == 7
    assert min(box["width"] for box in boxes) > 150
    strokes = {line.evaluate("line => getComputedStyle(line).stroke") for line in page.locator("svg.flow .edge").all()}
    assert "none" not in strokes
    colours = {
        state: page.locator(f"svg.flow .step-{state}").first.evaluate("mark => getComputedStyle(mark).fill")
        for state in ("succeeded", "failed", "started", "waiting")
    }
    assert len(set(colours.values())) == 4
    assert page.locator("[style]").count() == 0


@pytest.mark.nightly
def test_the_graph_updates_automatically(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at(f"workflow?queue=default&id={scene.workflow.id}"))
    expect(page.get_by_role("heading", level=1)).to_contain_text("running")
    with same_document(page):
        scene.workflow.cancel()
        expect(page.get_by_role("heading", level=1)).to_contain_text("cancelled")
        expect(page.get_by_role("button", name="Cancel the workflow")).to_have_count(0)
        expect(page.locator("svg.flow .step-started")).to_have_count(0)


@does_actions("workflow-cancel")
def test_a_workflow_is_cancelled_once_confirmed(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at(f"workflow?queue=default&id={scene.workflow.id}"))
    page.get_by_role("button", name="Cancel the workflow").click()
    expect(page.get_by_role("dialog")).to_contain_text("Cancel the workflow “order-48217”")
    assert scene.workflow.refresh().state == "running"
    confirm(page, "Cancel the workflow")
    expect_message(page, "is cancelled")
    assert scene.workflow.refresh().state == "cancelled"


@pytest.mark.nightly
@does_actions("workflow-retry")
def test_failed_steps_are_retried(
    site: Site, page: Page, taskq: TaskQ, inspector: Inspector, redis_server: RedisServer
) -> None:
    workflow = (taskq.remote("first").si() | taskq.remote("second").si()).delay()
    (task,) = inspector.tasks("default", TaskState.PENDING).tasks
    inspector.archive_task(task.queue, task.id)
    key = taskq.runtime.keys.queue("default").workflow(workflow.id)
    redis_server.client.hset(key, mapping={"s0": "f", "bad": 1})

    page.goto(site.at(f"workflow?queue=default&id={workflow.id}"))
    page.get_by_role("button", name="Run failed steps again").click()
    expect(page.get_by_role("dialog")).to_contain_text("(1)")
    confirm(page, "Run again")
    expect_message(page, "1 step of the workflow")
    assert inspector.count("default", TaskState.PENDING) == 1


@pytest.mark.nightly
def test_viewers_see_workflows_without_actions(site: Site, scene: Scene) -> None:
    page = site.viewer().new_page()
    page.goto(site.at(f"workflow?queue=default&id={scene.workflow.id}"))
    expect(page.locator("svg.flow rect.box")).to_have_count(7)
    for name in ("Cancel the workflow", "Run failed steps again"):
        expect(page.get_by_role("button", name=name)).to_have_count(0)
