"""Check a built site: every link, anchor and picture must exist, and no page may load anything from another site."""

from collections import defaultdict
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

_LOADED = {"script": "src", "img": "src", "source": "srcset", "iframe": "src", "video": "src", "object": "data"}
_ENTRANCES = ("index.html", "search.html")
"""Pages that need no link to them: the first page, and the page that the search form opens."""
_LOADED_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "manifest"}


class _Page(HTMLParser):
    """Collects the links, the loaded resources and the anchors of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Record the links, resources and anchors of a tag."""
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        if tag in ("a", "area") and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and _LOADED_LINKS & set(given.get("rel", "").split()):
            self.loads.append(given.get("href", ""))
        elif tag in _LOADED and given.get(_LOADED[tag]):
            self.loads += [each.split()[0] for each in given[_LOADED[tag]].split(",") if each.split()]


def check(site: Path) -> list[str]:
    """Return the problems of a built site, one line each."""
    pages = {path.resolve(): _read(path) for path in sorted(site.rglob("*.html"))}
    if not pages:
        return [f"there is no page in {site}"]
    problems: dict[str, None] = {}
    reached: dict[Path, int] = defaultdict(int)
    for path, page in pages.items():
        name = path.relative_to(site.resolve())
        for target in page.links:
            problem, linked = _follow(target, path, pages)
            if problem:
                problems[f"{name}: {target}: {problem}"] = None
            elif linked is not None and linked != path:
                reached[linked] += 1
        for target in page.loads:
            if urlsplit(target).scheme in ("http", "https") or target.startswith("//"):
                problems[f"{name}: {target}: is loaded from another site"] = None
            elif problem := _follow(target, path, pages)[0]:
                problems[f"{name}: {target}: {problem}"] = None
    for path in pages:
        if not reached[path] and path.relative_to(site.resolve()).as_posix() not in _ENTRANCES:
            problems[f"{path.relative_to(site.resolve())}: no page links here"] = None
    return list(problems)


def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _follow(target: str, path: Path, pages: dict[Path, _Page]) -> tuple[str, Path | None]:
    """Return the problem of a link ("" for none), and the file to which it leads (None for another site)."""
    parts = urlsplit(target)
    if parts.scheme in ("http", "https", "mailto", "data", "javascript") or parts.netloc:
        return "", None
    linked = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if linked.is_dir():
        linked /= "index.html"
    if not linked.exists():
        return "the file does not exist", None
    if parts.fragment and linked in pages and unquote(parts.fragment) not in pages[linked].anchors:
        return "the anchor does not exist", None
    return "", linked
