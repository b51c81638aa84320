"""Users of the dashboard, their roles, and login hooks."""

import base64
import binascii
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from taskq_core import ConfigurationError
from taskq_core.settings.language import gettext


class Role(StrEnum):
    """Permissions of a user."""

    VIEWER = "viewer"
    """May read everything, but payloads only with `viewers_see_payloads`."""
    OPERATOR = "operator"
    """May read everything, and change queues and tasks."""


@dataclass(frozen=True, slots=True)
class User:
    """A user who has logged in.

    Attributes:
        name: Name for the audit log and the page.
        role: The permissions.
    """

    name: str
    role: Role = Role.VIEWER

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise ConfigurationError(f"the name of a user must be a string, got {type(self.name).__name__}")
        object.__setattr__(self, "role", Role(self.role))


LoggedIn = User | Response | None
"""The user, a response that asks for a login, or None for a refused request."""
Login = Callable[[Request], LoggedIn | Awaitable[LoggedIn]]
"""Returns the user of a request. A plain function is called in a thread."""
Check = Callable[[str, str], User | Awaitable[User | None] | None]
"""Returns the user with this name and password, or None."""


async def ask_login(login: Login, request: Request) -> LoggedIn:
    """Call the login hook for a request.

    Raises:
        TypeError: The hook returned a value of another type.
    """
    found: object = await _called(login, request)
    if found is None or isinstance(found, User | Response):
        return found
    raise TypeError(f"the login hook must return a User, a Response or None, got {type(found).__name__}")


def basic_login(check: Check, *, realm: str = "taskq") -> Login:
    """Return a login hook that lets the browser ask for a name and a password (HTTP Basic). Use it over TLS only.

    Args:
        check: Receives the name and the password. It must compare in constant time. The argument `failed_logins` of
            the dashboard slows down guesses.
        realm: Name that the browser shows.

    Raises:
        ConfigurationError: The realm is not valid in a header.
    """
    if not callable(check):
        raise ConfigurationError(f"basic_login takes a function, got {type(check).__name__}")
    if not realm.isascii() or not realm.isprintable() or '"' in realm or "\\" in realm:
        raise ConfigurationError(f"realm must be plain text without quotes, got {realm!r}")

    async def login(request: Request) -> LoggedIn:
        given = _credentials(request.headers.get("authorization", ""))
        found = None if given is None else await _called(check, *given)
        if isinstance(found, User):
            return found
        challenge = {"WWW-Authenticate": f'Basic realm="{realm}", charset="UTF-8"'}
        return PlainTextResponse(gettext("log in first"), 401, headers=challenge)

    return login


def _credentials(header: str) -> tuple[str, str] | None:
    scheme, _, rest = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(rest.strip(), validate=True).decode().partition(":")
    except (binascii.Error, ValueError):
        return None
    return (name, password) if colon else None


async def _called(function: Callable[..., Any], *arguments: object) -> Any:
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None)):  # noqa: B004
        return await function(*arguments)
    found = await run_in_threadpool(function, *arguments)
    return await found if inspect.isawaitable(found) else found
