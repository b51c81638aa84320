"""`taskq explain`: what an error or warning means, what causes it and what helps. It asks nobody."""

from typing import Any

import click

from taskq_core.cli.base import Command
from taskq_core.cli.explanations import SECTIONS, Explanation, find_explanation, nearest_codes, plain
from taskq_core.cli.session import Session

EPILOG = """\
examples:
  %(prog)s queue-not-found
  %(prog)s QueueNotFoundError
  %(prog)s
"""


@click.command("explain", cls=Command, epilog=EPILOG)
@click.argument("code", required=False)
@click.pass_obj
def explain(session: Session, code: str | None) -> None:
    """Explain an error or warning: meaning, causes and what to do.

    CODE is the word in brackets at the end of a message, or the name of an error class. Without it, all are listed.
    """
    if code is None:
        _list(session)
        return
    found = find_explanation(code)
    if found is None:
        near = nearest_codes(code)
        known = f"did you mean {' or '.join(map(repr, near))}?" if near else "taskq explain lists all"
        raise click.UsageError(f"no error or warning {code!r}; {known}", click.get_current_context())
    if session.output.as_json:
        session.output.json(_document(found))
        return
    title = f"{found.code} ({found.name})" if found.name else found.code
    session.output.line(title)
    session.output.line("")
    for word, text in (("means", found.means), ("cause", found.cause), ("cure", found.cure)):
        for line in click.wrap_text(plain(text), 100, f"  {word:<7}", " " * 9).splitlines():
            session.output.line(line)


def _list(session: Session) -> None:
    if session.output.as_json:
        session.output.json({"errors": [_document(each) for section in SECTIONS for each in section.entries]})
        return
    for section in SECTIONS:
        session.output.line(section.title)
        for each in section.entries:
            session.output.line(f"  {each.code:<24}{plain(each.means).partition(';')[0].rstrip('.')}")
        session.output.line("")


def _document(found: Explanation) -> dict[str, Any]:
    texts = {word: plain(getattr(found, word)) for word in ("means", "cause", "cure")}
    return {"code": found.code, "name": found.name or None, **texts}
