"""Test that every page fits a narrow screen, has light and dark colors, and is usable with the keyboard."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from taskq_core.workflow import chain, group, step
from taskq_django import taskq
from taskq_django.models import OutboxTask, PeriodicTask
from tests.browser.admin.people import (
    OUTBOX,
    PERIODIC,
    QUEUES,
    TASKS,
    WORKERS,
    WORKFLOWS,
    Site,
    page_of,
    workflow_page,
)
from tests.browser.admin.scene import SETTINGS, Scene, registered_tasks
from tests.browser.visiting import NARROW, width_beyond
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
LONG = "a-name-without-a-place-to-break-" * 5


@pytest.fixture
def paths(redis: RedisServer, settings: Any) -> Iterator[list[str]]:
    """The addresses of all pages, with sample data for each."""
    settings.TASKQ = {**settings.TASKQ, **SETTINGS}
    with registered_tasks(taskq):
        scene = Scene(redis, settings)
        scene.build()
        long = scene.enqueue(LONG, LONG, 5, **{LONG: LONG})
        scene.put(long, "retry", scene.now_s + 60, 10, 1, LONG)
        members = group([taskq.remote(LONG, queue=LONG).si()] * 2, name=LONG[:80])
        wide = chain(members, step(taskq.remote(LONG).si(), name="last")).named(LONG[:80]).delay()
        key = taskq.runtime.keys.queue(wide.queue).workflow(wide.id)
        redis.client.hset(key, mapping={"e0": LONG, "s1": "f", "e1": LONG, "r1": json.dumps(LONG)})
        redis.client.hset(f"{key}:f0", "0", LONG)
        redis.client.hset(f"{key}:g0", "1", json.dumps(LONG))
        long_row = PeriodicTask.objects.create(name=LONG, task="shop:greet", cron="@daily", time_zone="Asia/Tokyo")
        (worker, *_others) = redis.client.zrange("asynq:servers", 0, -1)
        server_id = worker.decode().rstrip("}").rpartition(":")[2]
        yield [
            "/admin/",
            "/admin/taskq_django/",
            *(QUEUES, f"{QUEUES}mail/change/", f"{QUEUES}{LONG}/change/", f"{QUEUES}mail/act/empty/"),
            *(TASKS, f"{TASKS}?state=retry", f"{TASKS}?state=completed", f"{TASKS}?q=nothing"),
            *(page_of(scene.failing), page_of(long), page_of(scene.failing).replace("change/", "history/")),
            *(page_of(scene.failing).replace("change/", "act/move_tasks/"),),
            *(f"{TASKS}add/", f"{TASKS}add/?task=mail:receipt"),
            *(WORKFLOWS, f"{WORKFLOWS}?q=nothing", f"{WORKFLOWS}?state=failed", workflow_page(scene.workflow)),
            *(f"{workflow_page(scene.workflow)}?step={name}" for name in ("pictures", "charge", "reserve", "none")),
            workflow_page(scene.workflow, "act/cancel_workflows/"),
            *(f"{workflow_page(wide)}?step={name}" for name in (LONG[:80], "last")),
            *(WORKERS, f"{WORKERS}{server_id}/change/"),
            *(PERIODIC, f"{PERIODIC}add/", *(f"{PERIODIC}{row.pk}/change/" for row in (scene.periodic, long_row))),
            *(OUTBOX, f"{OUTBOX}{OutboxTask.objects.earliest('pk').pk}/change/"),
        ]


def test_every_page_fits_a_narrow_screen(site: Site, paths: list[str]) -> None:
    page = site.operator(viewport=NARROW).new_page()

    beyond = {}
    for path in paths:
        answer: Any = page.goto(path)
        assert answer.status == 200, path
        beyond[path] = width_beyond(page)

    assert {path: width for path, width in beyond.items() if width} == {}


@pytest.mark.nightly
def test_text_has_enough_contrast_in_light_and_dark_mode(site: Site, paths: list[str]) -> None:
    light, dark = (
        site.operator(scheme, color_scheme=scheme).new_page()  # type: ignore[arg-type]  # it is one of the two
        for scheme in ("light", "dark")
    )

    faint = {}
    for path in paths:
        for page in (light, dark):
            page.goto(path)
            if found := page.evaluate(FAINT):
                faint[path, "dark" if page is dark else "light"] = found
    assert faint == {}
    assert brightness(light) > 2 * 255 > 255 > brightness(dark)


def brightness(page: Page) -> int:
    """Return the brightness of a page's background, 0 to 765."""
    found = page.evaluate("getComputedStyle(document.body).backgroundColor.match(/\\d+/g).slice(0, 3)")
    return sum(int(part) for part in found)


FAINT = """
() => {
  // Texts of this project's own elements whose contrast to what is behind them is below 4.5:1.
  const numbers = color => color.match(/[\\d.]+/g).map(Number);
  const light = color => {
    const [x, y, z] = color.slice(0, 3).map(c => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4);
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const up = element => element ? [element, ...up(element.parentElement)] : [];
  const behind = element =>
    up(element).map(each => numbers(getComputedStyle(each).backgroundColor)).find(color => (color[3] ?? 1) > 0) ??
    [255, 255, 255];
  const faint = [];
  const ours = "#content [class*=taskq-], #content [class*=taskq-] *, #content td, #content .readonly";
  for (const element of document.querySelectorAll(ours)) {
    const hasText = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!hasText || !element.checkVisibility() || element.closest("svg")) continue;
    const [back, color] = [behind(element), numbers(getComputedStyle(element).color)];
    const opaque = up(element).reduce((all, each) => all * getComputedStyle(each).opacity, color[3] ?? 1);
    const front = back.slice(0, 3).map((part, i) => opaque * color[i] + (1 - opaque) * part);
    const [one, other] = [light(front), light(back)];
    const contrast = (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05);
    const text = element.textContent.trim().slice(0, 40);
    if (contrast < 4.5) faint.push(`${contrast.toFixed(1)} ${element.className || element.tagName}: ${text}`);
  }
  return faint;
}
"""


def test_an_action_is_done_with_the_keyboard_alone(site: Site, paths: list[str]) -> None:
    page = site.operator().new_page()
    page.goto(f"{TASKS}?state=retry")

    def tab_to(selector: str) -> None:
        for _ in range(80):
            page.keyboard.press("Tab")
            if page.evaluate("selector => document.activeElement.matches(selector)", selector):
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                border = page.evaluate("getComputedStyle(document.activeElement).boxShadow")
                assert (outline, border) != ("none", "none"), f"{selector} does not show that it has the focus"
                return
        raise AssertionError(f"the keyboard does not reach {selector}")

    page.locator("#searchbar").focus()
    tab_to("select[name=action]")
    page.keyboard.type("Ar")  # for "Archive": letters within a second count as one word
    tab_to("button[name=index]")
    tab_to(".action-select")
    page.keyboard.press("Space")
    page.locator("select[name=action]").focus()
    tab_to("button[name=index]")
    page.keyboard.press("Enter")
    expect(page.locator("#content-main")).to_contain_text("Archive 1 task?")
    page.locator("#content-main a").first.focus()
    tab_to("#content-main input[type=submit]")
    page.keyboard.press("Enter")
    expect(page.locator(".messagelist")).to_contain_text("1 task was archived.")
