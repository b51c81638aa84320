"""What a migration does to files: find them, rewrite them together, show the difference, write.

A file is written only if what came out of it is Python again. It keeps its encoding and its line ends, and is replaced
in one step, so whoever reads it meanwhile sees the old or the new text.
"""

import ast
import contextlib
import difflib
import os
import tempfile
import tokenize
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from taskq_core.errors import ConfigurationError
from taskq_core.migration.celery import Rewriter
from taskq_core.migration.imports import put_imports
from taskq_core.migration.names import Names, Project, find_apps, find_tasks, module_of
from taskq_core.migration.rewriting import File
from taskq_core.migration.routes import find_routes
from taskq_core.migration.source import MARK, Source
from taskq_core.migration.values import Configured, queue_module

_SKIPPED = {"node_modules", "site-packages", "__pycache__", "build", "dist"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Where tasks find their queue: Django's adapter, or a `TaskQ` of a module.

    Attributes:
        module: What is imported from: `taskq_django`, or the module of the `TaskQ`.
        name: The name of the `TaskQ` in it, "" for Django.
    """

    module: str = "taskq_django"
    name: str = ""

    @classmethod
    def parse(cls, text: str) -> "Target":
        """Return what `django` or `module:name` says.

        Raises:
            ConfigurationError: It is neither.
        """
        if text == "django":
            return cls()
        module, colon, name = text.partition(":")
        if not colon or not name.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
            raise ConfigurationError(f"a target must be django or MODULE:NAME, as shop.queue:taskq, got {text!r}")
        return cls(module=module, name=name)

    @property
    def is_django(self) -> bool:
        """Whether it is Django's adapter."""
        return not self.name


@dataclass(slots=True, kw_only=True)
class Change:
    """What becomes of one file.

    Attributes:
        path: The file.
        old: Its text; "" of one that is new.
        new: Its text afterwards.
        notes: What to look at, as (line of the old text, sentence); the code works without.
        error: Why it was left alone, "" if it was not.
    """

    path: Path
    old: str = ""
    new: str = ""
    notes: list[tuple[int, str]] = field(default_factory=list)
    error: str = ""
    encoding: str = "utf-8"

    @property
    def is_change(self) -> bool:
        """Whether the text is another."""
        return self.new != self.old

    @property
    def marks(self) -> list[tuple[int, str]]:
        """The comments in the new text that say what was not translated, as (line, text)."""
        lines = enumerate(self.new.splitlines(), 1)
        return [(number, line.strip().removeprefix(MARK)) for number, line in lines if line.lstrip().startswith(MARK)]

    def diff(self) -> str:
        """Return the difference as a patch, "" where there is none."""
        name = self.path.as_posix()
        before = "/dev/null" if not self.old and self.new else name
        lines = difflib.unified_diff(
            self.old.splitlines(keepends=True), self.new.splitlines(keepends=True), before, name
        )
        return "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)

    def write(self) -> None:
        """Put the new text in the place of the old one.

        Raises:
            OSError: It cannot be written; the old text is still there.
        """
        place = self.path.resolve()
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=f".{place.name}.")
        try:
            with os.fdopen(handle, "w", encoding=self.encoding, newline="") as file:
                file.write(self.new)
            os.chmod(name, place.stat().st_mode & 0o777 if place.exists() else 0o644)
            os.replace(name, place)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise


@dataclass(slots=True, kw_only=True)
class Migration:
    """What becomes of all files.

    Attributes:
        changes: Of each file that was read.
    """

    changes: list[Change]

    @property
    def changed(self) -> list[Change]:
        """Those whose text is another."""
        return [each for each in self.changes if each.is_change]

    @property
    def failed(self) -> list[Change]:
        """Those that could not be read or rewritten."""
        return [each for each in self.changes if each.error]


def find_files(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the Python files of folders, each once; environments, hidden folders and links are left out.

    Raises:
        ConfigurationError: A path is not there.
    """
    seen: set[Path] = set()
    for path in paths:
        if path.is_dir():
            found = sorted(_walk(path))
        elif path.is_file():
            found = [path]
        else:
            raise ConfigurationError(f"there is no file or folder {str(path)!r}")
        for each in found:
            if each.resolve() not in seen:
                seen.add(each.resolve())
                yield each


def _walk(folder: Path) -> Iterator[Path]:
    for root, folders, files in os.walk(folder):
        folders[:] = [
            each
            for each in folders
            if not each.startswith(".") and each not in _SKIPPED and not (Path(root, each) / "pyvenv.cfg").exists()
        ]
        yield from (Path(root, each) for each in files if each.endswith(".py") and not Path(root, each).is_symlink())


def migrate_celery(paths: Sequence[Path], target: Target | None = None) -> Migration:
    """Return what becomes of Celery's code in files and folders. Nothing is written.

    Args:
        paths: Files, and folders that are searched for `*.py`. Calls are understood where the task is in one of them.
        target: Where tasks find their queue. None: Django's adapter if one of the files imports Django.

    Raises:
        ConfigurationError: A path is not there, or the target is not given and cannot be told.
    """
    changes, sources = [], []
    for path in find_files(paths):
        change = Change(path=path)
        changes.append(change)
        try:
            with path.open("rb") as file:
                change.encoding, _ = tokenize.detect_encoding(file.readline)
            change.old = change.new = path.read_bytes().decode(change.encoding)
            source = Source(change.old)
        except (SyntaxError, ValueError, RecursionError, tokenize.TokenError, OSError) as error:
            change.error = f"it cannot be read: {error}"
            continue
        names = Names(source.tree, module_of(path), is_package=path.stem == "__init__")
        sources.append((change, source, names))
    if target is None:
        if not any(origin.partition(".")[0] == "django" for *_, names in sources for origin in names.imported.values()):
            raise ConfigurationError("no file imports Django, so say where the TaskQ is: --to MODULE:NAME")
        target = Target()
    project = Project()
    trees = [(source.tree, names) for _, source, names in sources]
    find_apps(trees, project)
    find_tasks(trees, project)
    routes = find_routes(trees, project)
    configured = Configured()
    configured.is_there = not target.is_django and _queue_path(paths[0], target).exists()
    files = [File(source, names, project, module=target.module, app=target.name) for _, source, names in sources]
    rewriters = [Rewriter(file, configured=configured, routes=routes) for file in files]
    for rewriter in rewriters:
        rewriter.rewrite_tasks()
    for (change, *_), each, rewriter in zip(sources, files, rewriters, strict=True):
        _rewrite(change, each, rewriter)
    if not target.is_django and configured:
        changes.append(_queue_file(paths[0], target, configured))
    return Migration(changes=changes)


def _rewrite(change: Change, file: File, rewriter: Rewriter) -> None:
    try:
        rewriter.rewrite_rest()
        if file.source.is_changed:
            text = put_imports(file.source.result(), file.wanted, file.replaced, rewriter.moved)
            ast.parse(text)
            change.new = text
            text.encode(change.encoding)
    except (SyntaxError, ValueError) as error:
        change.new = change.old
        change.error = f"it was left as it is: {error}"
    change.notes = file.notes


def _queue_path(path: Path, target: Target) -> Path:
    """Return the file of the module of the `TaskQ`, in the folder that its first package stands in."""
    base = path if path.is_dir() else path.parent
    parts = target.module.split(".")
    if base.name == parts[0] and not (base / parts[0]).is_dir():
        base = base.parent
    return base.joinpath(*parts).with_suffix(".py")


def _queue_file(path: Path, target: Target, configured: Configured) -> Change:
    change = Change(path=_queue_path(path, target))
    text = queue_module(configured, target.name)
    if change.path.exists():
        change.old = change.new = change.path.read_text(encoding="utf-8")
        change.notes.append((1, "it is there already; Celery's settings would be:\n" + text))
    else:
        change.new = text
    return change
