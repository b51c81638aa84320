"""What it takes to rewrite one file: its source and names, marks in it, notes, and what it has to import."""

import ast

from taskq_core.migration.names import Names, Project
from taskq_core.migration.source import Part, Source


class File:
    """One file that is rewritten.

    Args:
        source: The file.
        names: What its names mean.
        project: The tasks and apps of all files.
        module: What tasks are imported from.
        app: Name of the `TaskQ` in it, "" for Django's adapter.

    Attributes:
        notes: What to look at, as (line, sentence).
        wanted: Names that have to be imported, by module.
        replaced: Names that something else stands for, where nothing uses them any more.
    """

    def __init__(self, source: Source, names: Names, project: Project, *, module: str, app: str) -> None:
        self.source, self.names, self.project = source, names, project
        self.module, self.app = module, app
        self.notes: list[tuple[int, str]] = []
        self.wanted: dict[str, set[str]] = {}
        self.replaced: set[str] = set()

    def mark(self, node: ast.AST, text: str) -> None:
        """Say above a statement what is left to do, or in a note where no comment may stand."""
        if not self.source.mark(node, text):
            self.note(node, text)

    def note(self, node: ast.AST, text: str) -> None:
        """Say what to look at, without a comment."""
        self.notes.append((self.source.line_of(node), text))

    def want(self, name: str, module: str = "taskq_core") -> str:
        """Have a name imported, and return it, or another where the file has one of this name already."""
        if self.names.imported.get(name) == f"{module}.{name}" or name not in self.names.bound:
            self.wanted.setdefault(module, set()).add(name)
            return name
        other = f"taskq_{name}"
        self.wanted.setdefault(module, set()).add(f"{name} as {other}")
        return other


def joined(pieces: list[list[Part]]) -> list[Part]:
    """Return pieces with commas between them."""
    parts: list[Part] = []
    for number, piece in enumerate(pieces):
        parts += [", "] if number else []
        parts += piece
    return parts


def literal(text: str) -> str:
    """Return a text as it stands in code."""
    return repr(text) if '"' in text or "\\" in text else f'"{text}"'
