"""What holds for all pages: their Python compiles and imports, and their links lead somewhere."""

import ast
import importlib
import re
from functools import cache
from pathlib import Path

from tests.docs.pages import BLOCK, PAGES, ROOT, blocks


def python_blocks() -> list[tuple[str, str]]:
    """Return the Python blocks of all pages, each with the path of its page."""
    return [
        (str(page.relative_to(ROOT)), block.text)
        for page in PAGES
        for block in blocks(page)
        if block.language == "python"
    ]


def test_python_on_pages_compiles() -> None:
    for page, text in python_blocks():
        ast.parse(text, filename=page)


def test_imports_on_pages_exist() -> None:
    """Every name that a page imports from one of the three packages exists."""
    missing = []
    for page, text in python_blocks():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("taskq_"):
                module = importlib.import_module(node.module or "")
                missing += [f"{page}: {node.module}.{n.name}" for n in node.names if not hasattr(module, n.name)]

    assert not missing


def test_links_lead_to_files_and_headings() -> None:
    broken = []
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)]+)\)", page.read_text(encoding="utf-8")):
            path, _, anchor = target.partition("#")
            linked = (page.parent / path).resolve() if path else page
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                broken.append(f"{page.relative_to(ROOT)}: {target}")

    assert not broken


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return frozenset(re.sub(r"[^\w -]", "", each.lower()).replace(" ", "-") for each in headings)


def test_files_named_on_pages_exist() -> None:
    """The test covers tests and scripts in backticks. The changelog is history and may name what is gone."""
    named = {
        (str(page.relative_to(ROOT)), path)
        for page in PAGES
        if page.name != "CHANGELOG.md"
        for path in re.findall(r"`((?:tests|scripts)/[\w/.-]*)", page.read_text(encoding="utf-8"))
    }

    assert named
    assert not [(page, path) for page, path in sorted(named) if not (ROOT / path).exists()]


def test_every_picture_is_there_shown_and_described() -> None:
    shown = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        tags = re.findall(r"<(?:img|source)\b[^>]*>", text)
        assert all(re.search(r'\balt="[^"]{20,}"', tag) for tag in tags if tag.startswith("<img")), page
        names = [name for tag in tags for name in re.findall(r'src(?:set)?="([^"]*)"', tag)]
        names += re.findall(r"!\[[^\]]{20,}\]\(([^)]*)\)", text)
        shown |= {(page.parent / name).resolve() for name in names}

    images = ROOT / "docs" / "images"
    assert shown == {path.resolve() for ending in ("png", "svg") for path in images.rglob(f"*.{ending}")}


def test_the_readme_says_the_same_in_chinese() -> None:
    """Both have the same links, code, commands and marks in the same order. Code differs only in comments."""
    pages = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh-CN.md")]
    links = [set(re.findall(r"\]\(([^)]+)\)", page)) - {"README.md", "README.zh-CN.md"} for page in pages]
    code = [
        [re.sub(r" *# .*", "", each["text"]) for each in map(re.Match.groupdict, BLOCK.finditer(page))]
        for page in pages
    ]
    marks = [re.findall(r"\| (yes|part|paid|\u2013|有|部分|付费)(?= \|)", page) for page in pages]
    words = {"有": "yes", "部分": "part", "付费": "paid"}

    assert links[0] == links[1]
    assert code[0] == code[1]
    assert marks[0] == [words.get(mark, mark) for mark in marks[1]]
    assert len(marks[0]) == 14 * 8
    assert pages[0].count("\n## ") == pages[1].count("\n## ")


def test_tutorials_install_what_their_code_needs() -> None:
    """The tests have all extras installed, but readers have only the extras that the tutorial installs."""
    needed = {
        "testing": r"import (capture|eager|drain|TaskQTestMixin)",
        "embedded": r"embedded://",
        "django": r"from taskq_django",
        "fastapi": r"from taskq_fastapi",
        "dashboard": r"\$ taskq dashboard|taskq_dashboard",
        "dash": r"\$ taskq dash\b(?!board)",
        "otel": r"opentelemetry",
    }
    for page in (ROOT / "docs/tutorials").glob("*.md"):
        text = page.read_text(encoding="utf-8")
        installed = re.findall(r"pip install \"?taskq-asynq(?:\[([\w,-]+)\])?", text)
        extras = set(installed[0].split(","))

        assert {extra for extra, sign in needed.items() if re.search(sign, text)} <= extras, page


def test_the_index_names_every_page() -> None:
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")

    missing = [
        str(page.relative_to(ROOT / "docs"))
        for page in (ROOT / "docs").rglob("*.md")
        if page.name != "README.md" and f"({page.relative_to(ROOT / 'docs').as_posix()})" not in index
    ]

    assert not missing


SECRETS = re.compile(
    r"(==|!=)\s*[bf]?[\"']Bearer|(password|secret|token|api_key|authorization)\w*\)?\s*(==|!=)", re.IGNORECASE
)


def test_no_example_compares_a_secret_in_a_time_that_tells_of_it() -> None:
    """Readers copy examples, so these use `hmac.compare_digest`, which takes as long for each guess."""
    pages = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("example_project/**/*.py")]

    found = [
        f"{page.relative_to(ROOT)}: {line.strip()}"
        for page in pages
        for line in page.read_text(encoding="utf-8").splitlines()
        if SECRETS.search(line)
    ]

    assert len(pages) > 50
    assert found == []
