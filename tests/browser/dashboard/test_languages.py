"""Test that a browser with the language Chinese gets Chinese texts, also from scripts and live updates."""

import pytest
from playwright.sync_api import expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.browser.dashboard.people import Site
from tests.browser.dashboard.test_every_page import grave
from tests.browser.scene import Scene
from tests.browser.visiting import NARROW, same_document, width_beyond

pytestmark = [pytest.mark.redis, pytest.mark.nightly]


def test_the_dashboard_is_used_in_chinese(site: Site, taskq: TaskQ, inspector: Inspector) -> None:
    taskq.remote("note").delay()
    page = site.operator(locale="zh-CN").new_page()
    page.goto(site.home)
    expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
    page.get_by_role("button", name="暂停实时更新").click()
    page.get_by_role("button", name="恢复实时更新").click()
    with same_document(page):
        inspector.pause("default")
        expect(page.locator("#queues")).to_contain_text("已暂停")
    inspector.resume("default")
    page.goto(site.home)
    page.get_by_role("button", name="暂停 default").click()
    expect(page.locator("p.notice")).to_have_text("队列“default”已暂停：worker 不再从中取任务。")

    page.goto(site.home)
    page.get_by_role("button", name="删除 default").click()
    page.get_by_role("dialog").get_by_role("button", name="删除").click()
    expect(page.locator("p.notice")).to_contain_text("队列“default”没有删除")

    page.goto(site.at("queue?name=default"))
    page.get_by_role("button", name="删除").click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("删除队列“default”及其计数器？")
    dialog.get_by_role("link", name="返回").click()
    with same_document(page):
        inspector.remove_queue("default", force=True)
        expect(page.locator("#live-notice")).to_have_text("不再更新：没有队列“default”")

    page.goto(site.at("settings"))
    page.get_by_label("语言").select_option("English")
    page.get_by_role("button", name="保存").click()
    page.goto(site.home)
    expect(page.get_by_role("heading", level=1)).to_have_text("Queues")


def test_chinese_pages_fit_a_narrow_screen_and_are_accessible(site: Site, scene: Scene) -> None:
    page = site.operator(viewport=NARROW, locale="zh-CN").new_page()
    for path in ("./", "queue?name=mail&state=retry", "tasks", "workers", "metrics", "settings"):
        page.goto(site.at(path))
        expect(page.locator("html")).to_have_attribute("lang", "zh-Hans")
        assert width_beyond(page) == 0, path
        assert grave(page) == [], path
