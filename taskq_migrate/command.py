"""`taskq migrate`: rewrite code that uses another task queue, so that it uses taskq."""

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from taskq_core.cli.plugin import FAILED, Command, Group, Output, Session
from taskq_core.errors import ConfigurationError

if TYPE_CHECKING:
    from taskq_migrate import Change, Migration

_MISSING = "taskq migrate needs a package that is not installed: pip install 'taskq-asynq[migrate]'"


@click.group("migrate", cls=Group)
def migrate() -> None:
    """Rewrite code that uses another task queue, so that it uses taskq."""


@migrate.command(
    "celery",
    cls=Command,
    epilog="""\
examples:
  %(prog)s shop/
      show the changes for a Django project
  %(prog)s shop/ --to shop.queue:taskq
      the same for another project, whose TaskQ is, or will be, in shop/queue.py
  %(prog)s shop/ --write
      change the files

Code that cannot be rewritten stays as it is, below a comment that begins with "TODO taskq". The command lists these
places.
""",
)
@click.option(
    "--to",
    "target",
    metavar="TARGET",
    help="target: django, or MODULE:NAME of a TaskQ (default: django, if a file imports it)",
)
@click.option("--write", is_flag=True, help="change the files (default: show the difference)")
@click.argument("paths", metavar="PATH...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.pass_obj
def celery(session: Session, target: str | None, write: bool, paths: tuple[Path, ...]) -> int:
    """Rewrite Celery's tasks, calls, workflows, schedule and settings for taskq.

    Name all folders of the project in one call, so that the command knows which task each call runs. The command does
    not run or import your code. The exit status is 1 if a file could not be read or rewritten; the other files are
    still rewritten.
    """
    try:
        room = importlib.import_module("taskq_migrate")
    except ImportError as error:
        raise ConfigurationError(_MISSING) from error
    found: Migration = room.migrate_celery(paths, None if target is None else room.Target.parse(target))
    if write:
        for change in found.changed:
            try:
                change.write()
            except OSError as error:
                change.error = f"the file cannot be written: {error.strerror}"
    if session.output.as_json:
        session.output.json(_document(found, is_written=write))
    else:
        _show(session.output, found, is_written=write)
    return FAILED if found.failed else 0


def _document(found: "Migration", *, is_written: bool) -> dict[str, object]:
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


def _show(out: Output, found: "Migration", *, is_written: bool) -> None:
    for change in found.changed:
        if not is_written:
            for line in change.diff().splitlines():
                out.line(line, style={"+": "green", "-": "red", "@": "cyan"}.get(line[:1], ""))
    for change in found.changes:
        _report(out, change)
    changed, marks = len(found.changed), sum(len(change.marks) for change in found.changes)
    verb = "changed" if is_written else "would change"
    out.note(
        f'{changed} of {len(found.changes)} files {verb}; {marks} places are marked "TODO taskq" for you to finish'
    )
    if changed and not is_written:
        out.note("nothing was written; --write changes the files")
    sys.stdout.flush()


def _report(out: Output, change: "Change") -> None:
    name = change.path.as_posix()
    for line, text in sorted(change.notes):
        for part in f"{name}:{line}: {text}".splitlines():
            out.note(part)
    for line, text in change.marks:
        out.note(f"{name}:{line}: TODO {text}")
    if change.error:
        out.error(f"{name}: {change.error}")
