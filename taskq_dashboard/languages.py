"""Choose the language of a page: the choice of the user, or else the first known language of the browser.

The code contains the English texts. A catalog contains the texts of each other language.
"""

from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files

from starlette.requests import Request

from taskq_dashboard import preferences
from taskq_dashboard.preferences import ENGLISH

HEADER_MAX = 500
"""Maximum number of characters of `Accept-Language` that are read."""
_TRADITIONAL = ("hant", "tw", "hk", "mo")
"""Parts of a language tag for Chinese in traditional characters."""


@cache
def catalogue(language: str) -> NullTranslations:
    """Return the catalog of translations to a language. The catalog of English is empty."""
    if language == ENGLISH:
        return NullTranslations()
    place = files(__package__).joinpath("locale", language.replace("-", "_"), "LC_MESSAGES", "dashboard.mo")
    with place.open("rb") as file:
        return GNUTranslations(file)


def language_of(request: Request) -> str:
    """Return the language of the response to a request."""
    return language_by(preferences.stored(request.cookies.get(preferences.COOKIE, "")), request)


def language_by(wanted: preferences.Preferences, request: Request) -> str:
    """Return the language of the response to a request of a user with these preferences."""
    return wanted.language or accepted(",".join(request.headers.getlist("accept-language")))


def accepted(header: str) -> str:
    """Return the first known language in `Accept-Language`, or English. Browsers send the preferred language first."""
    parts = [part.replace(" ", "").lower().split(";") for part in header[:HEADER_MAX].split(",")]
    wanted = [tag for tag, *weight in parts if weight not in (["q=0"], ["q=0.0"])]
    return next((found for tag in wanted if (found := _fitting(tag))), ENGLISH)


def _fitting(tag: str) -> str | None:
    primary, *rest = tag.split("-")
    if primary in (ENGLISH, "*"):
        return ENGLISH
    return "zh-Hans" if primary == "zh" and ("hans" in rest or not set(rest) & set(_TRADITIONAL)) else None
