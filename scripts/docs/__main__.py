"""Build the documentation site and check it.

    python -m scripts.docs                 build into build/site; open build/site/index.html
    python -m scripts.docs --to FOLDER     build into FOLDER/site
    python -m scripts.docs --check-only    only check the links of a site that exists

The script collects the pages and the generated API pages in FOLDER/docs. Sphinx turns them into HTML and treats each
warning as an error. The site also has each page as Markdown, and `llms.txt`. Then the script checks every link, anchor
and picture in the HTML. The build fails on a broken link and on anything that a page would load from another site.
Nothing is downloaded.
"""

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

from scripts.docs import checking, markdown, staging

ROOT = Path(__file__).resolve().parent.parent.parent


def build(stage: Path, site: Path) -> int:
    """Collect the pages and run Sphinx. Return its exit status."""
    for folder in (stage, site):
        shutil.rmtree(folder, ignore_errors=True)
    sections = staging.stage(ROOT, stage)
    options = ("--builder", "html", "--fail-on-warning", "--keep-going", "--quiet", "--jobs", "2")
    command = (sys.executable, "-m", "sphinx", *options, "--doctree-dir", str(stage / "doctrees"))
    status = subprocess.call((*command, str(stage / "pages"), str(site)), cwd=ROOT)
    if status == 0:
        markdown.write(stage / "pages", site, sections)
    return status


def main() -> int:
    """Build and check the site. Return 0 on success."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--to", type=Path, default=ROOT / "build", metavar="FOLDER", help="where to build")
    parser.add_argument(
        "--check-only", action="store_true", help="only check the links of a site that was built before"
    )
    options = parser.parse_args()
    site = options.to / "site"
    if not options.check_only and (status := build(options.to / "docs", site)):
        return status
    problems = checking.check(site)
    for problem in problems:
        print(problem, file=sys.stderr)
    print(f"{len(list(site.rglob('*.html')))} pages in {site}, {len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
