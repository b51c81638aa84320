"""Choose the language of a page: the choice of the user, or else the first known language of the browser.

The code contains the English texts. A catalog contains the texts of each other language.
"""

from collections.abc import Iterator
from functools import cache
from gettext import GNUTranslations, NullTranslations
from importlib.resources import files

from starlette.requests import Request

from taskq_fastapi.dashboard import preferences
from taskq_fastapi.dashboard.preferences import ENGLISH

HEADER_MAX = 500
"""Maximum number of characters of `Accept-Language` that are read."""
_TRADITIONAL = ("hant", "tw", "hk", "mo")
"""Parts of a language tag for Chinese in traditional characters."""


@cache
def catalogue(language: str) -> NullTranslations:
    """Return the catalog of a language. That of English is empty."""
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
    """Return the language that fits `Accept-Language` best (RFC 9110, 12.5.4), or English."""
    by_weight = sorted(
        _asked(header[:HEADER_MAX]), key=lambda each: -each[1]
    )  # a stable sort: the order decides between equal weights
    return next((found for tag, weight in by_weight if weight > 0 and (found := _fitting(tag))), ENGLISH)


def _asked(header: str) -> Iterator[tuple[str, float]]:
    for part in header.split(","):
        tag, _, parameters = part.partition(";")
        name, _, value = parameters.partition("=")
        weight = 1.0
        if name.strip().lower() == "q":
            try:
                weight = float(value)
            except ValueError:
                continue
        if tag.strip() and 0 <= weight <= 1:
            yield tag.strip().lower(), weight


def _fitting(tag: str) -> str | None:
    primary, *rest = tag.split("-")
    if primary in (ENGLISH, "*"):
        return ENGLISH
    return "zh-Hans" if primary == "zh" and ("hans" in rest or not set(rest) & set(_TRADITIONAL)) else None
