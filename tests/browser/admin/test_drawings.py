"""Test graphs of workflows and charts of queues in a real browser."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_django import taskq
from tests.browser.admin.people import QUEUES, Site, workflow_page
from tests.browser.admin.scene import Scene, registered_tasks
from tests.browser.visiting import NARROW, same_document, stop_time
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases="__all__")]


@pytest.fixture
def scene(redis: RedisServer, settings: Any) -> Any:
    """Sample data of a web shop."""
    with registered_tasks(taskq):
        scene = Scene(redis, settings)
        scene.build()
        yield scene


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


@pytest.mark.nightly
def test_the_last_hour_of_a_queue_is_drawn(page: Page, scene: Scene) -> None:
    page.goto(f"{QUEUES}mail/change/")

    for key, count in (("taskq-rates", 2), ("taskq-latency", 1)):
        lines = page.locator(f"#{key} svg.taskq-history path.taskq-line")
        expect(lines).to_have_count(count)
        width: Any = lines.first.evaluate("line => line.getBBox().width")
        assert width > 800, "the line covers most of the chart"
        assert lines.first.evaluate("line => getComputedStyle(line).stroke") != "none"
