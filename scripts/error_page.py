"""Write what `taskq explain` tells into the page of errors, or check that it stands there: `--write` or nothing."""

import argparse
import sys
from pathlib import Path

from taskq_core.cli.explanations import SECTIONS, Explanation

PAGE = Path(__file__).parents[1] / "docs/reference/errors.md"
BEGIN, END = "<!-- explanations: begin -->", "<!-- explanations: end -->"


def sections() -> str:
    """Return the generated part of the page, as Markdown."""
    parts = []
    for section in SECTIONS:
        parts.append(f"## {section.title}\n\n{section.intro}")
        parts += [_entry(each) for each in section.entries]
    return "\n\n".join(parts)


def _entry(each: Explanation) -> str:
    means = f"`{each.name}`: {each.means}" if each.name else each.means
    return f"### {each.code}\n\n{means}\n\n- Cause: {each.cause}\n- Cure: {each.cure}"


def page(old: str) -> str:
    """Return the page with its generated part made anew."""
    head, _, rest = old.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{sections()}\n\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Return 1 if the page is behind and was not to be written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if options.write:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        print(f"{PAGE} is behind taskq_core/cli/explanations.py: run this with --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
