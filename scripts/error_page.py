"""Copy the explanations of `taskq explain` into docs/reference/errors.md (`--write`), or check that they match."""

import argparse
import sys
from pathlib import Path

from taskq_core.cli.explain import read_text

PAGE = Path(__file__).parents[1] / "docs/reference/errors.md"
BEGIN, END = "<!-- explanations: begin -->", "<!-- explanations: end -->"


def page(old: str) -> str:
    """Return the text of the page with the current explanations."""
    head, _, rest = old.partition(BEGIN)
    return f"{head}{BEGIN}\n\n{read_text()}\n{END}{rest.partition(END)[2]}"


def main() -> int:
    """Write or check the page. Return 1 if it is out of date."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the page")
    options = parser.parse_args()
    old = PAGE.read_text(encoding="utf-8")
    new = page(old)
    if options.write:
        PAGE.write_text(new, encoding="utf-8")
    elif new != old:
        print(f"{PAGE} differs from taskq_core/cli/errors.md: run this with --write")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
