"""Write the pages of the site as Markdown beside their HTML, and `llms.txt`, which lists them for programs.

The form of `llms.txt` is that of https://llmstxt.org: a title, a summary as a quotation, and sections of links.
"""

import re
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

_TREE = re.compile(r"^```\{toctree\}.*?^```\n", re.MULTILINE | re.DOTALL)
_MARKUP = re.compile(r"\[((?:[^\[\]]|\[[^\[\]]*\])*)\]\([^()\s]+\)")
_TITLE = re.compile(r"^# (.+)$", re.MULTILINE)


def write(pages: Path, site: Path, sections: Mapping[str, Sequence[str]]) -> None:
    """Write the staged pages and their pictures to the site, and `llms.txt` with the pages by section."""
    texts = {
        path.relative_to(pages).as_posix(): _TREE.sub("", path.read_text(encoding="utf-8"))
        for path in sorted(pages.rglob("*.md"))
    }
    for name, text in texts.items():
        target = site / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    shutil.copytree(pages / "images", site / "images", dirs_exist_ok=True)
    lines = ["# taskq", "", f"> {_summary(texts['index.md'])}"]
    for section, names in sections.items():
        lines += ["", f"## {section}", ""]
        lines += [f"- [{_title(texts[name])}]({name}): {_summary(texts[name])}" for name in names]
    (site / "llms.txt").write_text("\n".join([*lines, ""]), encoding="utf-8")


def _title(text: str) -> str:
    found = _TITLE.search(text)
    assert found, "each page has a title"
    return found[1].replace("`", "")


def _summary(text: str) -> str:
    """Return the first sentence below the title, without links."""
    below = _TITLE.sub("", text, count=1).strip().partition("\n\n")[0].replace("\n", " ")
    plain = _MARKUP.sub(r"\1", below)
    return re.split(r"(?<=[.!?])\s", plain)[0].rstrip(":")
