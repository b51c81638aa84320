"""Takes the pictures of the admin that the docs show. `make screenshots` runs it.

It is a test that is run only where it is named. The pictures are of `scene.py`, in the light and in the dark.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from tests.browser.admin.people import OUTBOX, QUEUES, TASKS, WORKERS, Site, page_of
from tests.browser.admin.scene import SETTINGS, Scene, registered_tasks
from tests.browser.visiting import NARROW
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis
FOLDER = Path(__file__).parents[3] / "docs" / "images" / "admin"
WINDOW = {"width": 1200, "height": 780}
LONGEST = 1500
"""Highest picture, in pixels; a longer page is cut off there."""


@pytest.fixture
def scene(redis: RedisServer, settings: Any) -> Iterator[Scene]:
    settings.TASKQ = {**settings.TASKQ, **SETTINGS}
    settings.LANGUAGE_CODE, settings.TIME_ZONE = "en", "UTC"
    with registered_tasks():
        scene = Scene(redis, settings)
        scene.build()
        yield scene


def take(page: Page, name: str) -> None:
    """Save what a page shows."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    page.wait_for_load_state("networkidle")
    height = min(int(page.evaluate("document.documentElement.scrollHeight")), LONGEST)
    width = int(page.evaluate("window.innerWidth"))
    page.screenshot(
        path=FOLDER / f"{name}.png", full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height}
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_a_wide_screen(site: Site, scene: Scene, scheme: str) -> None:
    page = site.operator(color_scheme=scheme, viewport=WINDOW).new_page()

    page.goto(QUEUES)
    take(page, f"queues-{scheme}")
    page.goto(f"{QUEUES}mail/change/")
    take(page, f"queue-{scheme}")
    page.goto(TASKS)
    take(page, f"tasks-{scheme}")
    page.goto(f"{TASKS}?state=retry")
    take(page, f"tasks-retry-{scheme}")
    page.goto(page_of(scene.failing))
    page.locator("details.taskq-attempt summary").first.click()
    take(page, f"task-{scheme}")
    page.goto(f"{TASKS}?state=retry")
    for box in page.locator(".action-select").all()[:3]:
        box.check()
    page.locator("select[name=action]").select_option("move_tasks")
    page.locator(".actions button[name=index]").click()
    take(page, f"confirmation-{scheme}")
    page.goto(f"{TASKS}add/?task=mail:receipt")
    take(page, f"enqueue-{scheme}")
    page.goto(WORKERS)
    take(page, f"workers-{scheme}")
    page.goto(OUTBOX)
    take(page, f"outbox-{scheme}")


def test_pictures_for_a_narrow_screen(site: Site, scene: Scene) -> None:
    page = site.operator(viewport=NARROW).new_page()

    page.goto(QUEUES)
    take(page, "queues-narrow")
    page.goto(page_of(scene.failing))
    take(page, "task-narrow")


def test_picture_of_redis_being_away(site: Site, redis: RedisServer, settings: Any) -> None:
    page = site.operator(viewport=WINDOW).new_page()
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.2}

    page.goto(TASKS)
    take(page, "redis-away")
