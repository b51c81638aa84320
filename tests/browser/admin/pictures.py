"""Take the screenshots of the admin for the docs. `make screenshots` runs this module.

Its tests run only if the file is named. They use the data of `scene.py`, in light and dark mode.
"""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

from taskq_django import taskq
from tests.browser import picturing
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
from tests.browser.picturing import IMAGES, LONGEST, WINDOW
from tests.browser.visiting import NARROW
from tests.publishing import drain_beside_playwright, publish_task
from tests.redis_server import RedisServer

pytestmark = [pytest.mark.redis, pytest.mark.django_db(transaction=True, databases=["default", "other"])]
FOLDER = IMAGES / "admin"
LONGEST_LIST = 900
LONGEST_FORM = 2400
CLOSE_SIDEBAR = "localStorage.setItem('django.admin.navSidebarIsOpen', 'false')"


@pytest.fixture
def scene(redis: RedisServer, settings: Any) -> Iterator[Scene]:
    settings.TASKQ = {**settings.TASKQ, **SETTINGS}
    settings.LANGUAGE_CODE, settings.TIME_ZONE = "en", "UTC"
    with registered_tasks(taskq):
        scene = Scene(redis, settings)
        scene.build()
        yield scene


def take(page: Page, name: str, *, longest: int = LONGEST) -> None:
    """Save a screenshot of a page."""
    page.wait_for_load_state("networkidle")
    picturing.take(page, FOLDER / f"{name}.png", longest=longest)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pictures_for_a_wide_screen(site: Site, scene: Scene, scheme: str) -> None:
    page = site.operator(color_scheme=scheme, viewport=WINDOW).new_page()
    page.add_init_script(CLOSE_SIDEBAR)

    def take_at(path: str, name: str, *, longest: int = LONGEST) -> None:
        page.goto(path)
        take(page, f"{name}-{scheme}", longest=longest)

    take_at(QUEUES, "queues")
    take_at(f"{QUEUES}mail/change/", "queue")
    take_at(TASKS, "tasks", longest=LONGEST_LIST)
    take_at(f"{TASKS}?state=retry", "tasks-retry", longest=LONGEST_LIST)
    page.goto(page_of(scene.failing))
    page.locator("details.taskq-attempt summary").first.click()
    take(page, f"task-{scheme}")
    page.goto(f"{TASKS}?state=retry")
    for box in page.locator(".action-select").all()[:3]:
        box.check()
    page.locator("select[name=action]").select_option("move_tasks")
    page.locator(".actions button[name=index]").click()
    take(page, f"confirmation-{scheme}")
    take_at(f"{TASKS}add/?task=mail:receipt", "enqueue")
    workflow = workflow_page(scene.workflow)
    take_at(WORKFLOWS, "workflows", longest=LONGEST_LIST)
    take_at(workflow, "workflow")
    take_at(f"{workflow}?step=pictures", "workflow-step", longest=LONGEST_FORM)
    take_at(WORKERS, "workers")
    page.get_by_role("link", name="media-1").click()
    take(page, f"worker-{scheme}")
    page.goto(PERIODIC)
    page.locator("details.taskq-upcoming summary").first.click()
    take(page, f"periodic-{scheme}")
    take_at(f"{PERIODIC}{scene.periodic.pk}/change/", "periodic-task", longest=LONGEST_FORM)
    take_at(OUTBOX, "outbox")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_picture_of_a_task_that_waits_for_an_approval(
    site: Site, redis: RedisServer, settings: Any, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    settings.LANGUAGE_CODE, settings.TIME_ZONE = "en", "UTC"
    monkeypatch.setattr(taskq, "_tasks", {})
    handle = publish_task(taskq).using(task_id="publish-4711").delay(photo_id=4711)
    drain_beside_playwright(taskq)
    page = site.operator(color_scheme=scheme, viewport=WINDOW).new_page()
    page.add_init_script(CLOSE_SIDEBAR)
    page.goto(page_of(handle))
    take(page, f"task-waiting-{scheme}")


def test_pictures_for_a_narrow_screen(site: Site, scene: Scene) -> None:
    page = site.operator(viewport=NARROW).new_page()

    page.goto(QUEUES)
    take(page, "queues-narrow")
    page.goto(page_of(scene.failing))
    take(page, "task-narrow")
    page.goto(workflow_page(scene.workflow))
    take(page, "workflow-narrow")


def test_picture_while_redis_is_unavailable(site: Site, settings: Any) -> None:
    page = site.operator(viewport={**WINDOW, "height": 320}).new_page()
    page.add_init_script(CLOSE_SIDEBAR)
    settings.TASKQ = {"URL": "redis://127.0.0.1:1/0", "ENQUEUE_TIMEOUT": 0.2}

    page.goto(TASKS)
    take(page, "redis-away")
