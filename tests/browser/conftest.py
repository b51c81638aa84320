"""Provide a real Chromium for tests. Without it, the tests are skipped; in CI they fail."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from playwright.sync_api import Browser

from tests.browser.chromium import NONE_FOUND, find_chromium, running_chromium
from tests.browser.visiting import Visitor

OpenBrowser = Callable[..., Visitor]


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """A browser without a window. It ends with the module, because async tests cannot run while it is open."""
    if find_chromium() is None:
        if os.environ.get("CI") == "true":
            pytest.fail(f"{NONE_FOUND}, and CI has to have it")
        pytest.skip(NONE_FOUND)
    with running_chromium() as browser:
        yield browser


@pytest.fixture
def open_browser(chromium: Browser) -> Iterator[OpenBrowser]:
    """Return a function that opens a browser for a site's origin and options. It may be called several times."""
    with ExitStack() as stack:
        visitors: list[Visitor] = []

        def open_one(origin: str, **options: Any) -> Visitor:
            visitors.append(stack.enter_context(Visitor(chromium, origin, **options)))
            return visitors[-1]

        yield open_one
        for visitor in visitors:
            visitor.check()
