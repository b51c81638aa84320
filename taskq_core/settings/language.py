"""The language in which texts for people are told: English, unless whoever shows them says otherwise for a while.

A text is marked where it stands, by one of the functions below, and told in the language of the moment; whoever shows
it knows that language and brings its catalogue, for the core has none. Logs, errors and what programs read stay in
English. The language belongs to the context of a thread or task, so several are told at the same time.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from gettext import NullTranslations

_ENGLISH = NullTranslations()
_catalogue: ContextVar[NullTranslations] = ContextVar("taskq_language", default=_ENGLISH)


@contextmanager
def told_in(catalogue: NullTranslations) -> Iterator[None]:
    """Tell texts as a catalogue has them while the block runs; those that it lacks are told in English."""
    token = _catalogue.set(catalogue)
    try:
        yield
    finally:
        _catalogue.reset(token)


def gettext(text: str, /, **values: object) -> str:
    """Return a text in the language of the moment, with values in place of `%(name)s`; without any, `%` is itself."""
    found = _catalogue.get().gettext(text)
    return found % values if values else found


def ngettext(one: str, many: str, number: int, /, **values: object) -> str:
    """Return the text for a number of things, with values in place of `%(name)s`; the number is none by itself."""
    found = _catalogue.get().ngettext(one, many, number)
    return found % values if values else found


def pgettext(context: str, text: str, /, **values: object) -> str:
    """Return a text that means something else in another context."""
    found = _catalogue.get().pgettext(context, text)
    return found % values if values else found


def marked(text: str) -> str:
    """Return a text as it is; it is told later, by `gettext`."""
    return text


def pmarked(context: str, text: str) -> str:
    """Return a text as it is; it is told later, by `pgettext` in this context."""
    return text


def nmarked(one: str, many: str) -> tuple[str, str]:
    """Return a text for one thing and for several as they are; they are told later, by `ngettext`."""
    return one, many
