"""Parse forms and query strings, and check their fields."""

from collections.abc import Iterable
from typing import TypeVar
from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from taskq_core.settings.language import gettext
from taskq_dashboard.errors import BadRequestError, unknown_choice

T = TypeVar("T")

FIELDS_MAX = 20_000
TYPE = "application/x-www-form-urlencoded"


class Form:
    """The fields of a form or a query string, in their order.

    Args:
        fields: Names and values.
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        self.fields = list(fields)

    def get(self, name: str, default: str = "") -> str:
        """Return the last value of a field."""
        return next((value for each, value in reversed(self.fields) if each == name), default)

    def all(self, name: str) -> list[str]:
        """Return all values of a field."""
        return [value for each, value in self.fields if each == name]

    def need(self, name: str) -> str:
        """Return the value of a required field.

        Raises:
            BadRequestError: The field is missing or empty.
        """
        value = self.get(name)
        if not value:
            raise BadRequestError(gettext("%(name)s is missing", name=name))
        return value

    def choice(self, name: str, choices: Iterable[T]) -> T | None:
        """Return the choice in a field. None if the field is empty.

        Raises:
            BadRequestError: The value is not one of the choices.
        """
        text = self.get(name)
        offered = list(choices)
        if text and text not in map(str, offered):
            raise unknown_choice(name, offered, text)
        return next((each for each in offered if str(each) == text), None)

    def number(self, name: str, default: int, *, low: int, high: int) -> int:
        """Return the whole number in a field, or the default if the field is empty.

        Raises:
            BadRequestError: The value is not a whole number, or out of bounds.
        """
        text = self.get(name)
        if not text:
            return default
        if not (text.isascii() and text.isdigit() and len(text) <= 20) or not low <= int(text) <= high:
            raise BadRequestError(
                gettext(
                    "%(name)s must be a whole number from %(low)s to %(high)s, got %(got)r",
                    name=name,
                    low=low,
                    high=high,
                    got=text[:50],
                ),
                field=name,
            )
        return int(text)


def parsed(text: str) -> Form:
    """Return the fields of a query string or an encoded form.

    Raises:
        BadRequestError: There are too many fields, or a text is not UTF-8.
    """
    try:
        return Form(parse_qsl(text, keep_blank_values=True, max_num_fields=FIELDS_MAX, errors="strict"))
    except ValueError:
        raise BadRequestError(gettext("the request cannot be read")) from None


async def posted(request: Request, *, most: int) -> Form:
    """Return the form in the body of a request.

    Raises:
        HTTPException: The body is too large, or not a form.
        BadRequestError: As `parsed`.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != TYPE:
        raise HTTPException(415, gettext("send the form as %(kind)s", kind=TYPE))
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise HTTPException(413, gettext("the form may have %(most)s bytes", most=most))
    try:
        return parsed(body.decode("ascii"))
    except UnicodeDecodeError:
        raise BadRequestError(gettext("the request cannot be read")) from None
