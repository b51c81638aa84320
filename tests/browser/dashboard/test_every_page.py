"""Test that every page fits a narrow screen, is accessible, and is usable with the keyboard."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import axe_playwright_python
import pytest
from playwright.sync_api import Page, expect

from taskq_dashboard.registry import ACTIONS, PAGES
from tests.browser.dashboard.addresses import ODD, addresses, questions
from tests.browser.dashboard.people import Site, expect_message, row
from tests.browser.scene import Scene
from tests.browser.visiting import NARROW, width_beyond

pytestmark = pytest.mark.redis
AXE = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
GRAVE = ("serious", "critical")
LONG = "a-name-without-a-place-to-break-" * 5


@pytest.fixture
def paths(scene: Scene, site: Site) -> Sequence[str]:
    """The addresses of all pages, with sample data for each, and a queue and a task with long names."""
    long = scene.enqueue(LONG, LONG, 5, **{LONG: LONG})
    scene.put(long, "retry", scene.now_s + 60, 10, 1, LONG)
    found = [each for page in addresses(scene).values() for each in page]
    return [
        site.at(each) for each in (*found, *questions(scene), f"queue?name={LONG}", f"queue?name={LONG}&state=retry")
    ]


@pytest.mark.nightly
def test_every_page_has_an_address_for_the_tests(scene: Scene) -> None:
    assert set(addresses(scene)) == {page.path for page in PAGES.values()}
    assert {each.partition("?")[0] for each in questions(scene)} == {each.path for each in ACTIONS.values() if each.ask}


@pytest.mark.timeout(600)  # dozens of pages
def test_every_page_fits_a_narrow_screen(site: Site, scene: Scene, paths: Sequence[str]) -> None:
    page = site.operator(viewport=NARROW).new_page()
    first_of_each = {site.at(found[0]) for found in addresses(scene).values()}

    beyond, found = {}, {}
    for path in paths:
        answer: Any = page.goto(path)
        assert answer.status == 200, path
        beyond[path] = width_beyond(page)
        found[path] = grave(page) if path in first_of_each else []
    page.goto(site.home)
    page.get_by_role("button", name="Delete mail").click()
    expect(page.get_by_role("dialog")).to_be_visible()

    assert {path: width for path, width in beyond.items() if width} == {}
    assert {path: violations for path, violations in found.items() if violations} == {}
    assert grave(page) == []


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_pages_are_accessible(site: Site, paths: Sequence[str]) -> None:
    """Dark mode only changes colors, so only rules about colors are checked again."""
    visitor = site.operator(reduced_motion="reduce")  # colors change without an animation
    visitor.expect_errors("40[04]")
    page = visitor.new_page()

    found, backgrounds = {}, set()
    for path in (*paths, *(site.at(each) for each in ODD)):
        page.goto(path)
        found[path, "light"] = grave(page)
        page.emulate_media(color_scheme="dark")
        backgrounds.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        found[path, "dark"] = grave(page, "color-contrast")
        page.emulate_media(color_scheme="light")

    assert {where: violations for where, violations in found.items() if violations} == {}
    assert backgrounds == {"rgb(18, 22, 28)"}


def grave(page: Page, *rules: str) -> list[str]:
    """Return the serious and critical findings of axe-core, with all or some of its rules."""
    if not page.evaluate("'axe' in window"):
        page.evaluate(AXE)
    only = {"runOnly": list(rules)} if rules else {}
    found = page.evaluate("options => axe.run(document, options)", {"resultTypes": ["violations"], **only})
    return [
        f"{each['id']}: {node['target']} {node['html'][:200]}"
        for each in found["violations"]
        if each["impact"] in GRAVE
        for node in each["nodes"]
    ]


@pytest.mark.nightly
@pytest.mark.parametrize(
    "address", ["queue?name=mail&state=retry", "queue?name=mail&state=archived", "tasks", "failed"]
)
def test_actions_are_visible_without_scrolling_the_table(site: Site, page: Page, scene: Scene, address: str) -> None:
    """The table fits into a window of ordinary width, so it has no horizontal scroll bar."""
    page.goto(site.at(address))
    expect(page.locator("#tasks > tbody > tr").first).to_be_visible()

    beyond = page.locator("#tasks").evaluate(
        "table => table.closest('.scroll').scrollWidth - table.closest('.scroll').clientWidth"
    )
    assert beyond <= 0


def test_pages_are_usable_with_the_keyboard_alone(site: Site, scene: Scene) -> None:
    scene.redis.client.sadd("asynq:queues", "empty")
    page = site.operator().new_page()
    page.goto(site.home)

    def tab_to(name: str) -> None:
        for _ in range(120):
            page.keyboard.press("Tab")
            focus: Any = page.evaluate(
                "() => ({text: document.activeElement.textContent.trim().replace(/\\s+/g, ' '),"
                " outline: getComputedStyle(document.activeElement).outlineStyle})"
            )
            if focus["text"] == name:
                assert focus["outline"] != "none", f"{name} does not show that it has the focus"
                return
        raise AssertionError(f"the keyboard does not reach {name}")

    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    tab_to("Pause mail")
    page.keyboard.press("Enter")
    expect_message(page, "“mail” is paused")
    tab_to("Delete empty")
    page.keyboard.press("Space")
    expect(page.get_by_role("dialog")).to_contain_text("Delete the queue “empty”")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.get_by_role("button", name="Delete empty")).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_role("dialog")).to_be_visible()
    tab_to("Delete")
    page.keyboard.press("Enter")
    expect_message(page, "“empty” was deleted")
    expect(row(page, "empty")).to_have_count(0)
