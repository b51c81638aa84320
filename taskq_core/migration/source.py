"""The text of a Python file, and edits of single pieces of it.

An edit replaces a piece by text and by pieces of the old text, in which further edits may lie: so a call inside the
arguments of another is rewritten with it. Everything is counted in bytes of UTF-8, as `ast` does.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MARK = "# TODO taskq: "
"""What the comments begin with that say what was not translated."""


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of the old text: from the first byte to the one behind the last."""

    start: int
    end: int

    def __contains__(self, other: "Span") -> bool:
        return self.start <= other.start and other.end <= self.end


Part = str | Span
"""What an edit puts into its place: new text, or a piece of the old one, itself edited."""


@dataclass(frozen=True, slots=True)
class _Edit:
    span: Span
    parts: tuple[Part, ...]


class Source:
    """A parsed file.

    Args:
        text: The file.

    Raises:
        SyntaxError: It is no Python of this version.
    """

    def __init__(self, text: str) -> None:
        if re.search(r"\r(?!\n)", text):
            raise SyntaxError("a line ends with a carriage return alone")
        self.text = text
        self.tree = ast.parse(text)
        self._bytes = text.encode()
        self._lines = [0, *(match.end() for match in re.finditer(rb"\n", self._bytes))]
        self._edits: list[_Edit] = []
        self._comments = list(self._find_comments())
        self._parents: dict[ast.AST, ast.AST] = {}
        for parent in ast.walk(self.tree):
            for child in ast.iter_child_nodes(parent):
                self._parents[child] = parent

    def _find_comments(self) -> Iterator[Span]:
        lines = self.text.split("\n")
        for token in tokenize.generate_tokens(io.StringIO(self.text).readline):
            if token.type == tokenize.COMMENT:
                row, column = token.start
                start = self._lines[row - 1] + len(lines[row - 1][:column].encode())
                yield Span(start, start + len(token.string.encode()))

    # --- looking ------------------------------------------------------------------------------------------------------

    def span(self, node: ast.AST) -> Span:
        """Return where a node stands; of a decorated function from its first decorator on."""
        first = node
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and node.decorator_list:
            first = node.decorator_list[0]
        start = self._lines[first.lineno - 1] + first.col_offset  # type: ignore[attr-defined]  # nodes that stand somewhere
        if first is not node:
            start = self._bytes.rindex(b"@", 0, start)
        return Span(start, self._lines[node.end_lineno - 1] + node.end_col_offset)  # type: ignore[attr-defined]  # the same

    def read(self, place: ast.AST | Span) -> str:
        """Return the old text of a node or a piece."""
        span = place if isinstance(place, Span) else self.span(place)
        return self._bytes[span.start : span.end].decode()

    def parent(self, node: ast.AST) -> ast.AST | None:
        """Return what a node stands in."""
        return self._parents.get(node)

    def parents(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what a node stands in, the nearest first."""
        above = self._parents.get(node)
        while above is not None:
            yield above
            above = self._parents.get(above)

    def is_in_text(self, node: ast.AST) -> bool:
        """Whether it stands inside an f-string: before Python 3.12 nobody can say where."""
        return any(isinstance(each, ast.JoinedStr) for each in self.parents(node))

    def line_of(self, node: ast.AST) -> int:
        """Return its line, from 1."""
        return int(getattr(node, "lineno", 1))

    # --- changing -----------------------------------------------------------------------------------------------------

    def replace(self, place: ast.AST | Span, *parts: Part) -> bool:
        """Put other text, and old pieces, into a place. Return False, and change nothing, if a comment would go."""
        if not self.can_replace(place, *parts):
            return False
        self._edits.append(_Edit(place if isinstance(place, Span) else self.span(place), parts))
        return True

    def can_replace(self, place: ast.AST | Span, *parts: Part) -> bool:
        """Whether no comment would go with what is replaced."""
        span = place if isinstance(place, Span) else self.span(place)
        kept = [part for part in parts if isinstance(part, Span)]
        return all(any(each in part for part in kept) for each in self._comments if each in span)

    def mark(self, node: ast.AST, text: str) -> bool:
        """Write a comment above the statement that a node stands in. Return False if there is no place for one."""
        for each in (node, *self.parents(node)):
            if not isinstance(each, ast.stmt):
                continue
            begin, indent = self._line(each)
            if indent.strip():
                continue  # it stands behind another on its line
            comment = f"{MARK}{text}"
            if comment in self._marks_above(begin):
                return True  # it was said before
            edit = _Edit(Span(begin, begin), (f"{indent.decode()}{comment}{self.newline}",))
            if edit not in self._edits:
                self._edits.append(edit)
            return True
        return False

    def was_marked(self, node: ast.AST) -> bool:
        """Whether an earlier run has written a comment above the statement that a node stands in."""
        statement = next(each for each in (node, *self.parents(node)) if isinstance(each, ast.stmt))
        return next(self._marks_above(self._line(statement)[0]), None) is not None

    def _line(self, statement: ast.stmt) -> tuple[int, bytes]:
        """Return where the line of a statement begins, and what stands before it there."""
        start = self.span(statement).start
        begin = max(line for line in self._lines if line <= start)
        return begin, self._bytes[begin:start]

    def _marks_above(self, begin: int) -> Iterator[str]:
        """Yield the comments of an earlier run right above a line."""
        for line in reversed(self._bytes[:begin].decode().split("\n")[:-1]):
            if not line.lstrip().startswith(MARK):
                return
            yield line.strip()

    def insert_after(self, statement: ast.stmt, text: str) -> None:
        """Write lines below a statement, and below the comment behind it."""
        end = self._bytes.find(b"\n", self.span(statement).end)
        place = len(self._bytes) if end < 0 else end + 1
        gap = self.newline if end < 0 else ""
        self._edits.append(_Edit(Span(place, place), (gap + text.replace("\n", self.newline) + self.newline,)))

    def insert_import(self, lines: Sequence[str]) -> None:
        """Write imports above the first of the file, or below what has to come first."""
        body = self.tree.body
        position = 0
        if body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
            position = 1  # the docstring
        while position < len(body) and _is_future(body[position]):
            position += 1
        text = "\n".join(lines)
        if position < len(body) and isinstance(body[position], ast.Import | ast.ImportFrom):
            start = self.span(body[position]).start
            self._edits.append(_Edit(Span(start, start), (text.replace("\n", self.newline) + self.newline,)))
        elif position:
            self.insert_after(body[position - 1], "\n" + text)
        else:
            start = self.span(body[0]).start if body else 0
            text = text.replace("\n", self.newline) + self.newline * 2
            self._edits.append(_Edit(Span(start, start), (text,)))

    def remove_line(self, statement: ast.stmt) -> None:
        """Take a statement out, with its line if it stands there alone."""
        span = self.span(statement)
        begin = max(line for line in self._lines if line <= span.start)
        end = self._bytes.find(b"\n", span.end)
        end = len(self._bytes) if end < 0 else end + 1
        is_alone = not self._bytes[begin : span.start].strip() and not self._bytes[span.end : end].strip()
        if is_alone:
            self.replace(Span(begin, end))
        else:
            self.replace(statement, "pass")

    @property
    def newline(self) -> str:
        """How the file ends its lines."""
        return "\r\n" if "\r\n" in self.text else "\n"

    @property
    def is_changed(self) -> bool:
        """Whether there are edits."""
        return bool(self._edits)

    def result(self) -> str:
        """Return the text with all edits.

        Raises:
            ValueError: Two edits meet in a way that one would be lost.
        """
        return self._render(Span(0, len(self._bytes)), _outermost(self._edits)).decode()

    def _render(self, span: Span, edits: Sequence[_Edit]) -> bytes:
        """Return a piece with the edits that lie in it, each of which lies in no other of them."""
        done, position = b"", span.start
        for edit in edits:
            done += self._bytes[position : edit.span.start]
            inside = [each for each in self._edits if each is not edit and each.span in edit.span and each not in edits]
            used = 0
            for part in edit.parts:
                if isinstance(part, str):
                    done += part.encode()
                else:
                    within = [each for each in inside if each.span in part]
                    used += len(within)
                    done += self._render(part, _outermost(within))
            if used != len(inside):
                raise ValueError("an edit lies in a piece that another one takes away")
            position = edit.span.end
        return done + self._bytes[position : span.end]


def _is_future(node: ast.stmt) -> bool:
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


def _outermost(edits: Sequence[_Edit]) -> list[_Edit]:
    """Return the edits that lie in no other, in their order; of those that insert at one place, in the order they came.

    Raises:
        ValueError: Two overlap without one lying in the other.
    """
    ordered = sorted(edits, key=lambda each: (each.span.start, -(each.span.end - each.span.start)))
    # What inserts at the beginning of a piece comes before it.
    ordered.sort(key=lambda each: (each.span.start, each.span.start != each.span.end, -each.span.end))
    found: list[_Edit] = []
    end = -1
    for edit in ordered:
        if edit.span.start >= end:
            found.append(edit)
            end = max(end, edit.span.end)
        elif edit.span.end > end:
            raise ValueError("two edits overlap")
    return found
