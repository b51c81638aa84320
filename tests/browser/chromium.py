"""Finds and starts the Chromium of this machine. None is ever downloaded."""

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
    """Return the program, or None if it is not installed."""
    for name in NAMES:
        if found := shutil.which(name):
            return Path(found)
    return next((path for path in ELSEWHERE if path.exists()), None)


@contextmanager
def running_chromium() -> Iterator[Browser]:
    """Start it without a window; it ends with the block. Until then this thread counts as one with an event loop."""
    program = find_chromium()
    if program is None:
        raise FileNotFoundError(NONE_FOUND)
    with sync_playwright() as playwright:
        # Its sandbox refuses to start as root, as in CI. It shows only our own pages.
        options = [*OPTIONS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
        browser = playwright.chromium.launch(executable_path=program, args=options)
        try:
            yield browser
        finally:
            browser.close()
