"""Routers refuse every request until the app decides who may send requests."""

import logging
from collections.abc import Sequence
from typing import Any

from fastapi import Depends, HTTPException

from taskq_core import ConfigurationError

logger = logging.getLogger("taskq.fastapi")


def is_closed(router: str, dependencies: Sequence[Any], *, allow_anonymous: bool) -> bool:
    """Return whether a router refuses every request.

    Raises:
        ConfigurationError: Both dependencies and `allow_anonymous` are given.
    """
    if allow_anonymous and dependencies:
        raise ConfigurationError(f"{router} takes dependencies, or allow_anonymous=True, and was given both")
    return not dependencies and not allow_anonymous


def guards(router: str, dependencies: Sequence[Any], *, allow_anonymous: bool, open_for: str) -> list[Any]:
    """Return the dependencies of a router. Without any, return a dependency that refuses every request.

    Args:
        router: Name of the function that makes the router.
        dependencies: The given dependencies.
        allow_anonymous: Whether all callers are allowed.
        open_for: What all callers could do with `allow_anonymous=True`, as the rest of a sentence.
    """

    async def refuse() -> None:
        raise refusal(router, open_for)

    return [Depends(refuse)] if is_closed(router, dependencies, allow_anonymous=allow_anonymous) else list(dependencies)


def refusal(router: str, open_for: str, *, give: str = "dependencies=[Depends(...)]") -> HTTPException:
    """Log the line that opens a router, and return the error of a request to a closed one."""
    logger.warning(
        "the routes of %s answer 403: give it %s that let the right people in, or "
        "allow_anonymous=True to let everybody %s",
        router,
        give,
        open_for,
    )
    return HTTPException(403, "this is closed; the log of the server says how to open it")
