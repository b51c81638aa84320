"""Run the commands of a page as an operator does: in a shell, with the programs of this environment."""

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.pages import blocks

ROOT = Path(__file__).parents[3]
HOW_TO = ROOT / "docs" / "how-to"


def commands(page: str, *, mark: str | None = None, heading: str | None = None) -> list[str]:
    """Return the commands of the console blocks of a page, in order.

    Args:
        page: Name of the page, without `.md`.
        mark: Only commands of blocks below an HTML comment with this text.
        heading: Only commands between this heading and the next.
    """
    path = HOW_TO / f"{page}.md"
    text = path.read_text(encoding="utf-8")
    within = text
    if heading is not None:
        within = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
        within = re.split(r"^#+ ", within, maxsplit=1, flags=re.MULTILINE)[0]
    return [
        line.removeprefix("$ ")
        for block in blocks(path)
        if block.language == "console" and block.text in within and mark in (None, block.mark)
        for line in block.text.splitlines()
        if line.startswith("$ ")
    ]


def headings(page: str) -> list[str]:
    """Return the third-level headings of a page, which are the drills."""
    return re.findall(r"^### (.+)$", (HOW_TO / f"{page}.md").read_text(encoding="utf-8"), re.MULTILINE)


def shell(command: str, folder: Path, variables: Mapping[str, str], *, status: int | None = 0) -> str:
    """Run a command and return its output. It must exit with `status`; None allows any status."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "OTEL_", "DJANGO_"))}
    path = os.pathsep.join((variables.get("BIN", str(folder)), str(Path(sys.executable).parent), kept.get("PATH", "")))
    done = subprocess.run(
        ("sh", "-c", command),
        cwd=folder,
        env={**kept, **variables, "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert status is None or done.returncode == status, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout
