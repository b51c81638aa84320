"""`taskq migrate`: move the code of another task queue to taskq."""

import sys
from pathlib import Path

import click

from taskq_core.cli.base import FAILED, Command, Group
from taskq_core.cli.render import Output
from taskq_core.cli.session import Session
from taskq_core.migration import Change, Migration, Target, migrate_celery


@click.group("migrate", cls=Group)
def migrate() -> None:
    """Move the code of another task queue to taskq."""


@migrate.command(
    "celery",
    cls=Command,
    epilog="""\
examples:
  %(prog)s shop/
      show what would change in a Django project
  %(prog)s shop/ --to shop.queue:taskq
      the same where shop/queue.py has the TaskQ
  %(prog)s shop/ --write
      change it

What is not understood stays as it is, below a comment that begins with "TODO taskq".
""",
)
@click.option(
    "--to",
    "target",
    metavar="TARGET",
    help="where tasks find their queue: django, or MODULE:NAME of a TaskQ (default: django, if a file imports it)",
)
@click.option("--write", is_flag=True, help="change the files; without it the difference is shown")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def celery(session: Session, target: str | None, write: bool, paths: tuple[Path, ...]) -> int:
    """Rewrite Celery's tasks, calls, workflows, schedule and settings for taskq.

    Give all folders of the project at once, so that calls find their tasks. Nothing is run or imported. The status is 1
    if a file could not be read or rewritten; the others are done.
    """
    found = migrate_celery(paths, None if target is None else Target.parse(target))
    if write:
        for change in found.changed:
            try:
                change.write()
            except OSError as error:
                change.error = f"it cannot be written: {error.strerror}"
    if session.output.as_json:
        session.output.json(_document(found, is_written=write))
    else:
        _show(session.output, found, is_written=write)
    return FAILED if found.failed else 0


def _document(found: Migration, *, is_written: bool) -> dict[str, object]:
    return {
        "files": [
            {
                "path": change.path.as_posix(),
                "changed": change.is_change,
                "written": is_written and change.is_change and not change.error,
                "diff": change.diff(),
                "marks": [{"line": line, "text": text} for line, text in change.marks],
                "notes": [{"line": line, "text": text} for line, text in change.notes],
                "error": change.error or None,
            }
            for change in found.changes
            if change.is_change or change.notes or change.error or change.marks
        ]
    }


def _show(out: Output, found: Migration, *, is_written: bool) -> None:
    for change in found.changed:
        if not is_written:
            for line in change.diff().splitlines():
                out.line(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))
    for change in found.changes:
        _tell(out, change)
    changed, marks = len(found.changed), sum(len(change.marks) for change in found.changes)
    verb = "changed" if is_written else "would change"
    out.note(f"{changed} of {len(found.changes)} files {verb}; {marks} places are marked for you to look at")
    if changed and not is_written:
        out.note("nothing was written; --write does it")
    sys.stdout.flush()


def _tell(out: Output, change: Change) -> None:
    name = change.path.as_posix()
    for line, text in sorted(change.notes):
        for part in f"{name}:{line}: {text}".splitlines():
            out.note(part)
    for line, text in change.marks:
        out.note(f"{name}:{line}: TODO {text}")
    if change.error:
        out.complain(f"{name}: {change.error}")
