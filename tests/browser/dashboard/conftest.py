"""Fixtures: the web dashboard on a server in this process with a separate Redis, and its users."""

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Page

import taskq_core.warnings
from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_dashboard.pages import queues, task_actions
from taskq_fastapi.api.parts import time_left
from tests.browser.conftest import OpenBrowser
from tests.browser.dashboard.people import Site, app_of, serving
from tests.browser.scene import Scene, registered_tasks
from tests.browser.visiting import Visitor
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True, scope="module")
def _enqueueing_beside_playwright() -> Iterator[None]:
    """Allow blocking enqueues in this thread, although Playwright runs an event loop in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskq_core.warnings, "_warned_of_blocking", True)
        yield


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the time limit of actions, because the machine may be slow."""
    for module in (queues, task_actions):
        monkeypatch.setattr(module, "time_left", partial(time_left, 60.0))


@pytest.fixture
def taskq(redis_server: RedisServer) -> Iterator[TaskQ]:
    """A queue application with an empty Redis and the tasks of the shop."""
    taskq = TaskQ(redis_server.unix_url, queues={"default": 3, "low": 1}, enqueue_timeout=30)
    with registered_tasks(taskq):
        yield taskq
    taskq.close()


@pytest.fixture
def inspector(taskq: TaskQ) -> Inspector:
    """An inspector of the Redis."""
    return Inspector(taskq)


@pytest.fixture
def scene(taskq: TaskQ, redis_server: RedisServer) -> Scene:
    """Sample data of a web shop."""
    scene = Scene(redis_server, taskq)
    scene.build()
    return scene


@pytest.fixture
def site(taskq: TaskQ, open_browser: OpenBrowser) -> Iterator[Site]:
    """The dashboard."""
    served = TaskQ(taskq.settings.url, queues=taskq.settings.queues, enqueue_timeout=30)
    with registered_tasks(served), serving(app_of(served)) as origin:
        site = Site(origin, "/", open_browser)
        yield site
        for visitor in site.visitors:
            visitor.context.close()


@pytest.fixture
def operator(site: Site) -> Visitor:
    """The browser of a user with all permissions."""
    return site.operator()


@pytest.fixture
def page(operator: Visitor) -> Page:
    """Return a tab of a user with all permissions."""
    return operator.new_page()
