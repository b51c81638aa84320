"""Whatever a producer or a worker can put into Redis is shown as text: no script of it runs, on no page.

That none runs is checked at the end of each test of a browser, and that it was there at all in each of these.
"""

from typing import Any
from urllib.parse import urlencode

import pytest
from playwright.sync_api import Page, expect

from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from tests.browser.dashboard.people import Site, expect_told, tries
from tests.browser.visiting import SCRIPT
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis


def hostile(field: str) -> str:
    """Return what gets out of text, of an attribute and of a script, where it is not escaped."""
    call = f"{SCRIPT}('{field}')"
    return (
        f'{field}</script></pre></textarea></title><script>{call}</script><img src=x onerror="{call}">'
        f"' onfocus='{call}' autofocus=' \" onfocus=\"{call}\" autofocus=\" javascript:{call} {{{{ 7|add:7 }}}}"
    )


def visible(page: Page, field: str) -> None:
    """Check that a field's payload can be read as it is on the page, or the beginning of it."""
    expect(page.locator("main")).to_contain_text(f"{field}</script>"[:11])


@pytest.fixture
def task(taskq: TaskQ) -> Any:
    """A task all of whose fields are hostile."""
    return taskq.remote(
        hostile("name"),
        queue=hostile("queue"),
        task_id=hostile("id"),
        headers={hostile("header"): hostile("value")},
    ).delay(**{hostile("key"): hostile("payload")})


@tries("queue-pause")
def test_on_pages_of_queues_and_in_what_is_said_of_them(
    site: Site, page: Page, redis_server: RedisServer, task: Any
) -> None:
    redis_server.client.sadd("asynq:queues", hostile("damaged"))
    redis_server.client.set(f"asynq:{{{hostile('damaged')}}}:retry", "no sorted set")

    page.goto(site.home)
    visible(page, "queue")
    visible(page, "damaged")
    page.get_by_role("row").filter(has_text="queue</script>").get_by_role("link").first.click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("queue</script>")
    expect(page.locator("#types")).to_contain_text("name</script>")
    page.get_by_role("button", name="Pause", exact=True).click()
    expect_told(page, "queue</script>")
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.get_by_role("dialog")).to_contain_text("queue</script>")
    page.goto(site.at(f"queue?{urlencode({'name': hostile('damaged')})}"))
    visible(page, "damaged")


def test_in_addresses_and_cookies(site: Site, page: Page, task: Any) -> None:
    site.visitors[0].expect_trouble("40[04]")
    for query in ({"name": hostile("nowhere")}, {"name": "x", "state": hostile("state")}, {"sort": hostile("sort")}):
        page.goto(site.at(f"{'queue' if 'name' in query else ''}?{urlencode(query)}"))
        expect(page.locator("main")).to_contain_text("</script>")
    page.goto(site.at(f"{urlencode({'': hostile('path')})}"))
    expect(page.get_by_role("heading")).to_have_text("Not Found")
    page.goto(site.at(f"queue-delete?{urlencode({'queue': hostile('queue'), 'back': hostile('back')})}"))
    expect(page.get_by_role("link", name="Cancel")).to_have_attribute("href", "./")


def test_in_what_is_kept_up_to_date(site: Site, page: Page, taskq: TaskQ, inspector: Inspector) -> None:
    page.goto(site.home)
    taskq.remote(hostile("name"), queue=hostile("queue")).delay()
    visible(page, "queue")
    inspector.pause(hostile("queue"))
    expect(page.get_by_role("row").filter(has_text="queue</script>")).to_contain_text("paused")


def test_in_the_name_of_whoever_looks(site: Site, task: Any) -> None:
    page = site.operator(hostile("who").replace(":", "")).new_page()
    page.goto(site.home)
    expect(page.locator(".who")).to_contain_text("who</script>")
