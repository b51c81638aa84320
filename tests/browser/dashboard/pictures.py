"""Take the screenshots of the web dashboard for the docs. `make screenshots` runs this module.

Its tests run only if the file is named. They take each page at its first address in light and dark mode, some more
pages, and the page of a queue also in Chinese.
"""

from typing import Any

import pytest
from playwright.sync_api import expect

from taskq_core import TaskQ
from tests.browser.dashboard.addresses import ODD, addresses
from tests.browser.dashboard.people import Site
from tests.browser.picturing import IMAGES, WINDOW, take
from tests.browser.scene import Scene
from tests.browser.visiting import NARROW
from tests.publishing import drain_beside_playwright, publish_task

pytestmark = pytest.mark.redis
FOLDER = IMAGES / "dashboard"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_a_wide_screen(site: Site, scene: Scene, scheme: Any) -> None:
    visitor = site.operator(color_scheme=scheme, viewport=WINDOW)
    visitor.expect_errors("404")
    page = visitor.new_page()
    for path, found in addresses(scene).items():
        page.goto(site.at(found[0]))
        take(page, FOLDER / f"{path or 'queues'}-{scheme}.png")
    page.goto(site.at("queue?name=mail&state=retry"))
    take(page, FOLDER / f"tasks-retry-{scheme}.png", longest=900)
    page.goto(site.at(ODD[0]))
    take(page, FOLDER / f"not-found-{scheme}.png", longest=400)
    page.goto(site.home)
    page.get_by_role("button", name="Delete reports").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    take(page, FOLDER / f"question-{scheme}.png", longest=720)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_a_narrow_screen(site: Site, scene: Scene, scheme: Any) -> None:
    page = site.viewer(color_scheme=scheme, viewport=NARROW).new_page()
    for address, name in (("./", "queues"), ("queue?name=mail", "queue")):
        page.goto(site.at(address))
        take(page, FOLDER / f"{name}-narrow-{scheme}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_in_chinese(site: Site, scene: Scene, scheme: Any) -> None:
    page = site.operator(color_scheme=scheme, viewport=WINDOW, locale="zh-CN").new_page()
    page.goto(site.at("queue?name=mail"))
    take(page, FOLDER / f"queue-zh-Hans-{scheme}.png")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_of_a_task_that_waits_for_an_approval(site: Site, taskq: TaskQ, scheme: Any) -> None:
    publish_task(taskq).using(task_id="publish-4711").delay(photo_id=4711)
    drain_beside_playwright(taskq)
    page = site.operator(color_scheme=scheme, viewport=WINDOW).new_page()
    page.goto(site.at("task?queue=default&id=publish-4711"))
    take(page, FOLDER / f"task-waiting-{scheme}.png")
