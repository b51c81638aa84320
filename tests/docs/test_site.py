"""The site of the documentation is built without a warning, and its checks notice what is broken."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import find_chromium, running_chromium
from tests.test_docs import ROOT

if not os.environ.get("CI"):
    pytest.importorskip("sphinx", reason="the group docs is not installed")

from scripts.docs import checking, staging


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_whole_and_works_without_a_server(tmp_path: Path) -> None:
    """As `make docs`: a warning is an error; links, anchors and pictures are followed. Then it is looked at from disk.

    One test, for the build takes most of its time.
    """
    command = (sys.executable, "-m", "scripts.docs", "--to", str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=570, check=False)

    assert done.returncode == 0, done.stdout + done.stderr
    site = tmp_path / "site"
    pages = {path.relative_to(ROOT / "docs").with_suffix(".html") for path in (ROOT / "docs").rglob("*.md")}
    pages = {Path("index.html") if page == Path("README.html") else page for page in pages}
    assert not {page for page in pages if not (site / page).exists()}
    reference = (site / "reference/api/taskq_core.html").read_text()
    inherited = ("TaskQ.schedule", "Task.using", "Workflow.delay")
    assert not [each for each in ("TaskArgumentsError", *inherited) if each not in reference]
    assert "/taskq/queues/" in (site / "reference/http-api.html").read_text()
    if find_chromium() is not None or os.environ.get("CI"):
        look_at(site)


def look_at(site: Path) -> None:
    """The search finds, nothing is asked of the network, and no page is wider than its window."""
    asked: list[str] = []

    with running_chromium() as browser:
        window = browser.new_page(viewport={"width": 1280, "height": 900})
        window.on("request", lambda request: asked.append(request.url))
        window.goto((site / "search.html").as_uri() + "?q=lease")
        window.locator("#search-results li a", has_text="Delivery").first.wait_for()
        wide = [
            (name, width)
            for width in (1280, 375)
            for name in ("index", "reference/settings", "reference/api/taskq_core", "explanation/states")
            if is_wider(window, site / f"{name}.html", width)
        ]

    assert not [url for url in asked if not url.startswith("file:")]
    assert not wide


def is_wider(window: Page, path: Path, width: int) -> bool:
    """Whether a page would have to be scrolled to the side in a window."""
    window.set_viewport_size({"width": width, "height": 900})
    window.goto(path.as_uri())
    return bool(window.evaluate("document.documentElement.scrollWidth > document.documentElement.clientWidth"))


def page(folder: Path, body: str, name: str = "index.html") -> None:
    (folder / name).write_text(f"<html><head></head><body>{body}</body></html>")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ('<a href="other.html#there">x</a>', ""),
        ('<a href="missing.html">x</a>', "there is no such file"),
        ('<a href="other.html#gone">x</a>', "there is no such anchor"),
        ('<a href="#gone">x</a>', "there is no such anchor"),
        ('<img src="gone.png">', "there is no such file"),
        ('<picture><source srcset="gone.png 2x"></picture>', "there is no such file"),
        ('<script src="https://cdn.example/x.js"></script>', "is loaded from elsewhere"),
        ('<link rel="stylesheet" href="//fonts.example/x.css">', "is loaded from elsewhere"),
        ('<a href="https://example.com">x</a>', ""),
    ],
)
def test_what_is_broken_is_noticed(tmp_path: Path, body: str, problem: str) -> None:
    page(tmp_path, body + '<a href="other.html"></a>')
    page(tmp_path, '<h2 id="there">x</h2>', "other.html")

    found = checking.check(tmp_path)

    assert len(found) == bool(problem)
    assert all(each.endswith(problem) for each in found)


def test_a_page_that_nothing_links_to_is_noticed(tmp_path: Path) -> None:
    page(tmp_path, "")
    page(tmp_path, "", "lost.html")

    assert checking.check(tmp_path) == ["lost.html: no page links here"]


def test_a_site_without_pages_is_noticed(tmp_path: Path) -> None:
    assert checking.check(tmp_path)


def test_the_navigation_is_the_index() -> None:
    index = "## How-to: x\n\n### Django\n\n- [use it](a.md), and [more](b.md)\n\n## Reference: y\n\n- [Keys](c.md): z\n"

    assert staging.navigation(index) == {"Django": ["a.md", "b.md"], "Reference": ["c.md"]}


@pytest.mark.parametrize("index", ["## A\n\n- [x](a.md)\n- [y](a.md)\n", "## A\n\nnothing\n"])
def test_an_index_that_cannot_be_a_navigation_is_refused(index: str) -> None:
    with pytest.raises(ValueError, match=r"twice|no pages"):
        staging.navigation(index)


def test_links_that_leave_the_site_become_text(tmp_path: Path) -> None:
    """And what speaks to the tests is left out; code stays as it is."""
    (tmp_path / "docs" / "how-to").mkdir(parents=True)
    for name in ("README.md", "b.md"):
        (tmp_path / "docs" / name).touch()
    links = "[b](../b.md#x), [`code`](../../tests/x.py), [all](../README.md), [e](https://e.example)"
    text = f"{links}\n<!-- run -->\n```text\n[b](../../x)\n```\n"

    assert staging.page(text, tmp_path / "docs" / "how-to" / "a.md", tmp_path).splitlines() == [
        "[b](../b.md#x), `code`, [all](../index.md), [e](https://e.example)",
        "```text",
        "[b](../../x)",
        "```",
    ]
