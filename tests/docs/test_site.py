"""The site of the documentation is built without a warning."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import Page

from tests.browser.chromium import find_chromium, running_chromium
from tests.docs.pages import ROOT

if not os.environ.get("CI"):
    pytest.importorskip("sphinx", reason="the group docs is not installed")


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_site_is_built_whole_and_works_without_a_server(tmp_path: Path) -> None:
    """The build runs like `make docs`: it treats warnings as errors, and follows links, anchors and pictures.

    The site is then opened from disk. This is one test, because the build takes most of its time.
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
    check_markdown(site)
    if find_chromium() is not None or os.environ.get("CI"):
        look_at(site)


def check_markdown(site: Path) -> None:
    """Each page exists as Markdown too, `llms.txt` names it once, and its links lead to files of the site."""
    index = (site / "llms.txt").read_text()
    listed = re.findall(r"^- \[[^\]]+\]\(([^)]+)\): \S", index, re.MULTILINE)
    made = {path.relative_to(site).as_posix() for path in site.rglob("*.md")}

    assert index.startswith("# taskq\n\n> taskq is a task queue for Django and FastAPI.")
    assert sorted(listed) == sorted(made - {"index.md"})
    assert {Path(name).with_suffix(".html") for name in made} <= {
        path.relative_to(site) for path in site.rglob("*.html")
    }
    broken = [
        f"{name}: {target}"
        for name in made
        for target in re.findall(r"\]\(([^()\s#]+)[^()\s]*\)", without_code((site / name).read_text()))
        if not re.match(r"[a-z]+:", target) and not (site / name).parent.joinpath(target).exists()
    ]
    assert not broken


def without_code(text: str) -> str:
    return re.sub(r"^(`{3,}|~{3,}).*?^\1|`[^`\n]*`", "", text, flags=re.MULTILINE | re.DOTALL)


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
