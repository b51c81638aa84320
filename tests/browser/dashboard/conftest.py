"""The dashboard on a server in this process, over a Redis of the tests, and people who look at it."""

from collections.abc import Iterator
from functools import partial

import pytest
from playwright.sync_api import Page

import taskq_core.warnings
from taskq_core import TaskQ
from taskq_core.inspector import Inspector
from taskq_fastapi.api.parts import time_left
from taskq_fastapi.dashboard.pages import queues, task_actions
from tests.browser.conftest import OpenBrowser
from tests.browser.dashboard.people import Site, app_of, serving, tried_by
from tests.browser.scene import Scene, registered_tasks
from tests.browser.visiting import Visitor
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True, scope="module")
def _enqueueing_beside_playwright() -> Iterator[None]:
    """Let tasks be enqueued in this thread, which counts as one with an event loop because of Playwright."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(taskq_core.warnings, "_warned_of_blocking", True)
        yield


@pytest.fixture(autouse=True)
def _time_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an action do all there is to do, however long that takes on this machine."""
    for module in (queues, task_actions):
        monkeypatch.setattr(module, "time_left", partial(time_left, 60.0))


@pytest.fixture
def taskq(redis_server: RedisServer) -> Iterator[TaskQ]:
    """A queue application on an empty Redis, with the tasks of a shop."""
    taskq = TaskQ(redis_server.unix_url, queues={"default": 3, "low": 1}, enqueue_timeout=30)
    with registered_tasks(taskq):
        yield taskq
    taskq.close()


@pytest.fixture
def inspector(taskq: TaskQ) -> Inspector:
    """Looks at what is in Redis."""
    return Inspector(taskq)


@pytest.fixture
def scene(taskq: TaskQ, redis_server: RedisServer) -> Scene:
    """A shop in the middle of its day."""
    scene = Scene(redis_server, taskq)
    scene.build()
    return scene


@pytest.fixture
def site(taskq: TaskQ, open_browser: OpenBrowser, request: pytest.FixtureRequest) -> Iterator[Site]:
    """The dashboard."""
    posts: list[str] = []
    served = TaskQ(taskq.settings.url, queues=taskq.settings.queues, enqueue_timeout=30)
    with registered_tasks(served), serving(app_of(served, posts)) as origin:
        site = Site(origin, "/", posts, open_browser)
        yield site
        for visitor in site.visitors:
            visitor.context.close()
    missing = set(tried_by(request.function)) - set(posts)
    assert not missing, f"the test says that it does {sorted(missing)}, and does not"


@pytest.fixture
def operator(site: Site) -> Visitor:
    """Somebody who may do everything."""
    return site.operator()


@pytest.fixture
def page(operator: Visitor) -> Page:
    """Return a tab of a user with all permissions."""
    return operator.new_page()
