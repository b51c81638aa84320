"""Routers refuse every request until the app decides who may send requests."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, HTTPException

from taskq_core import ConfigurationError

logger = logging.getLogger("taskq.fastapi")


def is_closed(router: str, dependencies: Sequence[Any], *, allow_anonymous: bool) -> bool:
    """Return whether a router refuses every request, because it has no dependencies and no `allow_anonymous`.

    Raises:
        ConfigurationError: Both dependencies and `allow_anonymous` are given.
    """
    if allow_anonymous and dependencies:
        raise ConfigurationError(f"{router} takes either dependencies or allow_anonymous=True, got both")
    return not dependencies and not allow_anonymous


def guards(router: str, dependencies: Sequence[Any], *, allow_anonymous: bool, open_for: str) -> list[Any]:
    """Return the dependencies of a router. If nothing decides about access, return one that refuses every request.

    Args:
        router: Name of the function that makes the router.
        dependencies: The given dependencies.
        allow_anonymous: Whether all callers are allowed.
        open_for: What `allow_anonymous=True` would let everybody do, for the log.
    """

    async def refuse() -> None:
        raise refusal(router, open_for)

    return [Depends(refuse)] if is_closed(router, dependencies, allow_anonymous=allow_anonymous) else list(dependencies)


def refusal(router: str, open_for: str, *, give: str = "dependencies=[Depends(...)]") -> HTTPException:
    """Log how to allow access to a router that refuses every request, and return the error for a request."""
    logger.warning(
        "the routes of %s answer 403: pass %s that admit the right users, or allow_anonymous=True to let everybody %s",
        router,
        give,
        open_for,
    )
    return HTTPException(403, "access is not configured; the log of the server explains how to allow it")
