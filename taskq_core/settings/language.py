"""Translate texts of the user interface with the catalog of the page that shows them.

The functions below mark a text for translation or translate it. The core has no catalogs: a dashboard or the admin sets
its catalog with `translated_with`. Without a catalog, texts are in English. Logs and errors are always in English. The
catalog belongs to the context of a thread or asyncio task, so requests in different languages do not affect each other.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from gettext import NullTranslations

_ENGLISH = NullTranslations()
_catalog: ContextVar[NullTranslations] = ContextVar("taskq_language", default=_ENGLISH)


@contextmanager
def translated_with(catalog: NullTranslations) -> Iterator[None]:
    """Translate texts with a catalog while the block runs. Texts that the catalog lacks stay in English."""
    token = _catalog.set(catalog)
    try:
        yield
    finally:
        _catalog.reset(token)


def gettext(text: str, /, **values: object) -> str:
    """Return a translated text, with values in place of `%(name)s`. Without values, `%` is a plain character."""
    found = _catalog.get().gettext(text)
    return found % values if values else found


def ngettext(one: str, many: str, number: int, /, **values: object) -> str:
    """Return the translated singular or plural text for a number, with values in place of `%(name)s`."""
    found = _catalog.get().ngettext(one, many, number)
    return found % values if values else found


def pgettext(context: str, text: str, /, **values: object) -> str:
    """Return the translation of a text that has different translations in different contexts."""
    found = _catalog.get().pgettext(context, text)
    return found % values if values else found


def marked(text: str) -> str:
    """Mark a text for translation, and return it unchanged. `gettext` translates it later."""
    return text


def pmarked(context: str, text: str) -> str:
    """Mark a text for translation in a context, and return it unchanged. `pgettext` translates it later."""
    return text


def nmarked(one: str, many: str) -> tuple[str, str]:
    """Mark a singular and a plural text for translation, and return both unchanged, for a later `ngettext`."""
    return one, many
