"""Store the preferences of a user in a cookie: colors, language, update interval, rows on a page."""

from dataclasses import dataclass

from taskq_core.settings.language import pmarked
from taskq_dashboard.errors import BadRequestError
from taskq_dashboard.form import Form, parsed

COOKIE = "taskq_settings"
THEMES = ("system", pmarked("colours", "light"), pmarked("colours", "dark"))
INTERVALS = (0, 2, 5, 8, 20)
"""Seconds between two updates; 0: no updates."""
ROWS = (10, 20, 30, 60, 100)
ENGLISH = "en"
LANGUAGES = {ENGLISH: "English", "zh-Hans": "简体中文"}
"""Name of each language in that language, by its tag (BCP 47)."""
YEAR_S = 365 * 24 * 3600


@dataclass(frozen=True, slots=True, kw_only=True)
class Preferences:
    """Preferences of a user.

    Attributes:
        theme: `light`, `dark`, or `system` for the theme of the operating system.
        interval: Seconds between two updates; 0 for no updates.
        rows: Rows on a page.
        language: One of `LANGUAGES`, or "" for the language of the browser.
    """

    theme: str = "system"
    interval: int = 5
    rows: int = 20
    language: str = ""

    @property
    def cookie(self) -> str:
        """The value of the cookie."""
        return f"theme={self.theme}&interval={self.interval}&rows={self.rows}&language={self.language}"


def chosen(form: Form) -> Preferences:
    """Return the preferences in a form.

    Raises:
        BadRequestError: A value is not one of the choices.
    """
    default = Preferences()
    return Preferences(
        theme=form.choice("theme", THEMES) or default.theme,
        interval=default.interval if (found := form.choice("interval", INTERVALS)) is None else found,
        rows=form.choice("rows", ROWS) or default.rows,
        language=form.choice("language", LANGUAGES) or "",
    )


def stored(cookie: str) -> Preferences:
    """Return the preferences in a cookie, or the default if it is not valid."""
    try:
        return chosen(parsed(cookie))
    except BadRequestError:
        return Preferences()
