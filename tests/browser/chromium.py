"""Find and start the installed Chromium. It is never downloaded."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ELSEWHERE = (
    Path("/Applications/Chromium.app/Contents/MacOS/Chromium"),
    Path("/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"),
)
NONE_FOUND = "no Chromium on this machine (on Debian: apt-get install chromium)"
OPTIONS = (
    "--disable-dev-shm-usage",  # small in containers
    "--hide-scrollbars",
    "--force-color-profile=srgb",
    "--font-render-hinting=none",
)


@cache
def find_chromium() -> Path | None:
    """Return the path of the program, or None if it is not installed."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    return next((path for path in ELSEWHERE if path.exists()), None)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Run Chromium without a window for the time of a block, in which Playwright runs an event loop in this thread."""
    program = find_chromium()
    if program is None:
        raise FileNotFoundError(NONE_FOUND)
    with sync_playwright() as playwright:
        # Chromium's sandbox does not start as root, which CI uses. The browser shows only pages of the tests.
        options = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()
