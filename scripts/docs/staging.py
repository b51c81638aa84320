"""Collect the input of Sphinx: the pages of docs/, pages generated from the code, and the navigation.

The navigation is generated from docs/README.md, the index of the documentation. A test checks that the index contains
every page.
"""

import re
import shutil
from pathlib import Path

from scripts.docs import api, http_api

_FENCE = re.compile(r"^(```|~~~)")
_LINK = re.compile(r"(?P<text>\[(?:[^\[\]]|\[[^\[\]]*\])*\])\((?P<target>[^()\s]+)\)")
_PAGE = re.compile(r"\[[^\]]+\]\((?P<target>[^)#:]+\.md)\)")
_ROOT_PAGES = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md"}
"""Pages outside of docs/ that are part of the site: file in the repository, and its name in the site."""


def stage(root: Path, folder: Path) -> dict[str, list[str]]:
    """Write all input of Sphinx. Return the pages by section.

    Args:
        root: The repository.
        folder: An empty folder. The pages are written to its subfolder `pages`.
    """
    docs, pages = root / "docs", folder / "pages"
    shutil.copytree(docs / "images", pages / "images", ignore=shutil.ignore_patterns("*.json"))
    shutil.copytree(docs / "images", pages / "_pictures" / "images", ignore=shutil.ignore_patterns("*.json"))
    for path in sorted(docs.rglob("*.md")):
        _write(pages / path.relative_to(docs), page(path.read_text(encoding="utf-8"), path, root))
    for source, name in _ROOT_PAGES.items():
        _write(pages / name, page((root / source).read_text(encoding="utf-8"), root / source, root))
    made = api.pages(root)
    for name, text in made.items():
        _write(pages / name, text)
    _write(pages / "reference/http-api.md", http_api.page())

    index = pages / "README.md"
    sections = navigation(index.read_text(encoding="utf-8"))
    sections["Reference"] += ["reference/http-api.md"]
    sections["Python API"] = list(made)
    sections["Project"] = list(_ROOT_PAGES.values())
    _write(
        pages / "index.md",
        index.read_text(encoding="utf-8") + "\n" + "\n".join(map(_tree, sections, sections.values())),
    )
    index.unlink()
    here = Path(__file__).parent
    _write(pages / "_static" / "site.css", (here / "site.css").read_text(encoding="utf-8"))
    shutil.copy(here / "conf.py", pages / "conf.py")
    return sections


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def _tree(caption: str, names: list[str]) -> str:
    lines = "\n".join(name.removesuffix(".md") for name in names)
    return f"```{{toctree}}\n:hidden:\n:caption: {caption}\n\n{lines}\n```\n"


def navigation(index: str) -> dict[str, list[str]]:
    """Return the pages that the index names, by section. Subsections replace the section that contains them.

    Raises:
        ValueError: A section has no pages, or two sections contain the same page.
    """
    sections: dict[str, list[str]] = {}
    place: list[str] = []
    for line in index.splitlines():
        if line.startswith(("## ", "### ")):
            name = line.lstrip("# ").partition(":")[0]
            place = sections[name] = []
        elif line.startswith("- "):
            place += [match["target"] for match in _PAGE.finditer(line)]
    named = [target for pages in sections.values() for target in pages]
    twice = {target for target in named if named.count(target) > 1}
    if twice:
        raise ValueError(f"the index names {sorted(twice)} twice")
    headed = re.findall(r"^## ([^:\n]+)[^\n]*\n+### ", index, re.MULTILINE)
    empty = [name for name, pages in sections.items() if not pages and name not in headed]
    if empty:
        raise ValueError(f"sections of the index have no pages: {empty}")
    return {name: pages for name, pages in sections.items() if pages}


def page(text: str, path: Path, root: Path) -> str:
    """Return a page for the site, without markers for the tests and without links to files outside the site."""
    lines: list[str] = []
    fence = ""
    for line in text.splitlines():
        opening = _FENCE.match(line)
        if fence:
            fence = "" if line.startswith(fence) else fence
        elif opening:
            fence = opening[1]
            if lines and lines[-1].startswith("<!--"):
                lines.pop()
        else:
            line = _LINK.sub(lambda match: _link(match, path, root), line)
        lines.append(line)
    return "\n".join([*lines, ""])


def _link(match: re.Match[str], path: Path, root: Path) -> str:
    target = match["target"]
    if re.match(r"[a-z]+:|#", target):
        return match[0]
    name, hash_, anchor = target.partition("#")
    linked, docs = (path.parent / name).resolve(), root / "docs"
    here = path.parent.relative_to(docs) if path.is_relative_to(docs) else Path()
    if linked == docs / "README.md":
        inside = "index.md"
    elif linked.is_relative_to(docs) and linked.is_file():
        inside = linked.relative_to(docs).as_posix()
    elif linked.is_relative_to(root) and linked.relative_to(root).as_posix() in _ROOT_PAGES:
        inside = _ROOT_PAGES[linked.relative_to(root).as_posix()]
    else:
        return match["text"][1:-1]  # a link to a file that is not part of the site: keep only its text
    return f"{match['text']}({'../' * len(here.parts)}{inside}{hash_}{anchor})"
