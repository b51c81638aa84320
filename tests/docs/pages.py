"""Read the pages of the documentation, and run what they show."""

import os
import re
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from doctest import ELLIPSIS, OutputChecker
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted((*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")))
BLOCK = re.compile(
    r"(?:<!-- (?P<mark>[^>]*) -->\n)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
_FILE = re.compile(r"^# (?P<name>[\w/]+\.py)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code on a page, with the text of an HTML comment in the line before it."""

    mark: str
    language: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(**match.groupdict(default="")) for match in BLOCK.finditer(page.read_text(encoding="utf-8"))]


def files_of(page: Path) -> dict[str, str]:
    """Return the files that a page's Python blocks show: each begins with its name in a comment."""
    found: dict[str, str] = {}
    for block in blocks(page):
        if block.language == "python":
            _, *parts = _FILE.split(block.text)
            found.update(zip(parts[::2], parts[1::2], strict=True))
    return found


def write_files(page: Path, folder: Path) -> None:
    for name, text in files_of(page).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def table(page: str, heading: str) -> dict[str, list[str]]:
    """Return the cells of the first table below a heading, by the first cell without its quotes."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, maxsplit=1, flags=re.MULTILINE)[1]
    rows: dict[str, list[str]] = {}
    for line in section.splitlines():
        if line.startswith("|"):
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            rows[cells[0].strip("`")] = cells[1:]
        elif rows:
            break
    return dict(list(rows.items())[2:])  # without the head and the line below it


def environment(folder: Path, **more: str) -> dict[str, str]:
    """Return an environment in which this project's commands are found and nothing of the caller's interferes.

    A Redis that is there is waited for as long as a busy machine takes.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TASKQ_", "OTEL_", "DJANGO_"))}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    own = {"PATH": path, "PYTHONPATH": str(folder), "PYTHONUNBUFFERED": "1", "TASKQ_ENQUEUE_TIMEOUT": "30"}
    return {**kept, **own, **more}


def run_python(folder: Path, code: str, **variables: str) -> str:
    """Run a program in a folder and return what it printed."""
    done = subprocess.run(
        (sys.executable, "-c", textwrap.dedent(code)),
        cwd=folder,
        env=environment(folder, **variables),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


class Terminal:
    """A command of a tutorial in the background, with its output in a file."""

    def __init__(self, command: str, folder: Path, number: int, **variables: str) -> None:
        self.path = folder.parent / f"terminal-{number}.log"
        with self.path.open("wb") as output:
            self.process = subprocess.Popen(
                command.split(),
                cwd=folder,
                env=environment(folder, **variables),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def shows(self, expected: str) -> None:
        """Wait until the output is as the page says."""
        deadline = time.monotonic() + 60
        while not matches(expected, self.path.read_text(encoding="utf-8")):
            assert time.monotonic() < deadline, f"expected:\n{expected}\ngot:\n{self.path.read_text(encoding='utf-8')}"
            time.sleep(0.02)  # files send no event to wait for

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(30)


def matches(expected: str, output: str) -> bool:
    """Whether an output is as a page shows it, with `...` for anything, and with any further lines at the end."""
    checker = OutputChecker()
    lines = output.splitlines(keepends=True)
    return any(checker.check_output(expected, "".join(lines[:end]), ELLIPSIS) for end in range(len(lines), 0, -1))


def console(block: Block) -> tuple[str, str]:
    """Return the one command of a console block and the output shown below it."""
    command, _, output = block.text.partition("\n")
    assert command.startswith("$ ")
    return command.removeprefix("$ ").replace("python ", f"{sys.executable} "), output


@contextmanager
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    try:
        yield opened
    finally:
        for terminal in opened:
            if terminal.process.poll() is None:
                terminal.process.kill()
                terminal.process.wait()
