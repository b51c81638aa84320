"""`taskq explain`: show what an error or warning means, its usual cause, and what to do about it.

The texts are in `errors.md`, which is shipped with the package. `docs/reference/errors.md` contains the same text.
Links in the text are relative to that page.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import click

from taskq_core.cli.base import Command
from taskq_core.cli.session import Session


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """The explanation of one error or warning, in Markdown.

    Attributes:
        section: Title of the section that it belongs to.
        code: Code of the error or warning, as `TaskQError.code`.
        name: Name of the class, or "" for a warning that is only logged.
        means: What happened.
        cause: The usual cause.
        cure: What to do about it.
    """

    section: str
    code: str
    name: str
    means: str
    cause: str
    cure: str


def read_text() -> str:
    """Return the Markdown text with all explanations."""
    return files("taskq_core.cli").joinpath("errors.md").read_text(encoding="utf-8")


_ENTRY = re.compile(
    r"^## (?P<section>.+)$"
    r"|^### (?P<code>.+)\n\n(?:`(?P<name>\w+)`: )?(?P<means>.+)\n\n- Cause: (?P<cause>.+)\n- Cure: (?P<cure>.+)$",
    re.MULTILINE,
)
_SYSTEM_CHECK = re.compile(r"taskq\.[EW]\d{3}")


@cache
def explanations() -> Mapping[str, Explanation]:
    """Return all explanations by code, in the order of the page."""
    found: dict[str, Explanation] = {}
    section = ""
    for match in _ENTRY.finditer(read_text()):
        fields = match.groupdict(default="")
        section = fields.pop("section") or section
        if fields["code"]:
            found[fields["code"]] = Explanation(section=section, **fields)
    return found


def find_explanation(text: str) -> Explanation | None:
    """Return the explanation of a code, or of a class name as a traceback shows it."""
    name = text.strip().strip("[]").rpartition(".")[2]
    by_name = {each.name: each for each in explanations().values() if each.name}
    return explanations().get(name) or by_name.get(name)


def nearest_codes(text: str) -> Sequence[str]:
    """Return the codes that a misspelled code or class name may mean, the nearest first."""
    names = {each.name.lower(): each.code for each in explanations().values() if each.name}
    near = difflib.get_close_matches(text.lower(), [*explanations(), *names], n=3, cutoff=0.5)
    return list(dict.fromkeys(names.get(each, each) for each in near))


def plain(text: str) -> str:
    """Return Markdown as text for a terminal: links without addresses, code without backquotes."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", text).replace("`", "")


@click.command(
    "explain",
    cls=Command,
    epilog="""\
examples:
  %(prog)s queue-not-found
  %(prog)s QueueNotFoundError
  %(prog)s
""",
)
@click.argument("code", required=False)
@click.pass_obj
def explain(session: Session, code: str | None) -> None:
    """Explain an error or warning: meaning, cause and cure.

    CODE is the word in brackets at the end of a message, or the name of an error class. Without CODE, all errors and
    warnings are listed.
    """
    if code is None:
        _list(session)
        return
    found = find_explanation(code)
    if found is None and (check := _SYSTEM_CHECK.fullmatch(code.strip().strip("()"))):
        page = "docs/reference/system-checks.md"
        if session.output.as_json:
            session.output.json({"code": check[0], "page": page})
        else:
            session.output.line(f"{check[0]} is a system check of Django; {page} explains it")
        return
    if found is None:
        near = nearest_codes(code)
        hint = f"did you mean {' or '.join(map(repr, near))}?" if near else "taskq explain lists all"
        raise click.UsageError(f"no error or warning {code!r}; {hint}", click.get_current_context())
    if session.output.as_json:
        session.output.json(_document(found))
        return
    session.output.line(f"{found.code} ({found.name})" if found.name else found.code)
    session.output.line("")
    for word, text in (("means", found.means), ("cause", found.cause), ("cure", found.cure)):
        for line in click.wrap_text(plain(text), 100, f"  {word:<7}", " " * 9).splitlines():
            session.output.line(line)


def _list(session: Session) -> None:
    if session.output.as_json:
        session.output.json({"errors": [_document(each) for each in explanations().values()]})
        return
    section = ""
    for each in explanations().values():
        if each.section != section:
            if section:
                session.output.line("")
            session.output.line(each.section)
            section = each.section
        session.output.line(f"  {each.code:<24}{plain(each.means).partition(';')[0].rstrip('.')}")


def _document(found: Explanation) -> dict[str, Any]:
    texts = {word: plain(getattr(found, word)) for word in ("means", "cause", "cure")}
    return {"code": found.code, "name": found.name or None, **texts}
