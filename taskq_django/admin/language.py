"""The core's texts in the language that Django shows the admin in."""

from contextlib import AbstractContextManager
from gettext import NullTranslations

from django.utils import translation

from taskq_core.settings.language import told_in


class _Active(NullTranslations):
    """Django's catalogues of the language that is active where a text is told."""

    def gettext(self, message: str) -> str:
        """Return a text."""
        return translation.gettext(message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        """Return the text for a number of things."""
        return translation.ngettext(msgid1, msgid2, n)

    def pgettext(self, context: str, message: str) -> str:
        """Return a text that means something else in another context."""
        return translation.pgettext(context, message)


_ACTIVE = _Active()


def told_as_active() -> AbstractContextManager[None]:
    """Tell the core's texts in Django's active language while the block runs."""
    return told_in(_ACTIVE)
