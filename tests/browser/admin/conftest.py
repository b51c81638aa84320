"""Fixtures: Django's admin on a server in this process with a separate Redis, and its users."""

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page

import taskq_core.warnings
from taskq_core.inspector import Inspector
from taskq_django import taskq
from tests.browser.admin.people import Site
from tests.browser.conftest import OpenBrowser
from tests.browser.visiting import Visitor
from tests.redis_server import RedisServer


@pytest.fixture(autouse=True, scope="module")
def _database_beside_playwright() -> Iterator[None]:
    """Allow the database in this thread. Django refuses it, because Playwright runs an event loop in the thread."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "true")
        patch.setattr(taskq_core.warnings, "_warned_of_blocking", True)  # of `delay` in such a thread
        yield


@pytest.fixture
def redis(redis_server: RedisServer, settings: Any) -> Iterator[RedisServer]:
    """An empty Redis, whose URL is in the setting `TASKQ`."""
    settings.TASKQ = {"URL": redis_server.unix_url, "QUEUES": {"default": 3, "low": 1}, "ENQUEUE_TIMEOUT": 30}
    yield redis_server
    taskq.close()


@pytest.fixture
def inspector(redis: RedisServer) -> Inspector:
    """An inspector of the Redis."""
    return Inspector(taskq)


@pytest.fixture
def site(live_server: Any, redis: RedisServer, open_browser: OpenBrowser) -> Site:
    """The admin."""
    return Site(live_server.url, open_browser)


@pytest.fixture
def operator(site: Site) -> Visitor:
    """The browser of a user with all permissions."""
    return site.operator()


@pytest.fixture
def page(operator: Visitor) -> Page:
    """Return a tab of a user with all permissions."""
    return operator.new_page()
