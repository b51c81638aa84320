"""Test graphs of workflows and charts of queues in a real browser."""

from typing import Any

import pytest
from playwright.sync_api import Page, expect

from tests.browser.dashboard.people import Site
from tests.browser.scene import Scene

pytestmark = [pytest.mark.redis, pytest.mark.nightly]


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


def lines(page: Page, key: str) -> Any:
    """Return the lines of a chart."""
    return page.locator(f"#chart-{key} path.line")


def test_charts_are_drawn_in_the_page(site: Site, page: Page, scene: Scene) -> None:
    page.goto(site.at("metrics"))

    expect(page.locator("figure.chart")).to_have_count(10)
    for key in ("processed", "failed", "errors", "size", "latency", "memory", "pending", "retry", "archived"):
        expect(lines(page, key)).to_have_count(4)
        box: Any = page.locator(f"#chart-{key} svg").bounding_box()
        drawn: Any = lines(page, key).first.evaluate("line => line.getBBox().width")
        colour = lines(page, key).first.evaluate("line => getComputedStyle(line).stroke")
        assert box["width"] > 200
        assert drawn > 800, "the line covers most of the chart"
        assert colour != "none"
    different = {line.evaluate("line => getComputedStyle(line).stroke") for line in lines(page, "size").all()}
    assert len(different) == 4
