"""The lifespan that opens an app's queue applications and closes them again.

It goes around the user's own lifespan, which may enqueue from its first to its last line. The app starts even while
Redis is down, with a warning in the log: most of what it serves does not need the queue, and Redis may be back before a
task is enqueued. What no waiting heals ends the start: a password refused, an embedded server that cannot be started.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.types import Lifespan

from taskq_core import BrokerAuthenticationError, BrokerError, ConfigurationError, TaskQ
from taskq_core.broker.operations import ping
from taskq_core.errors import EmbeddedRedisError
from taskq_fastapi.applications import DEFAULT_NAME, STATE_KEY, registered

AppT = TypeVar("AppT", bound=Starlette)

_logger = logging.getLogger("taskq.fastapi")


def taskq_lifespan(
    taskq: TaskQ | Mapping[str, TaskQ], *, lifespan: Lifespan[AppT] | None = None
) -> Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that gives an app its queue application, or several.

    At the start each is connected to once, so that a wrong address shows in the log and the first request finds an open
    connection. At the end their connections are closed, after the user's lifespan has ended.

    Args:
        taskq: The queue application, which `ClientDep` then uses; or several by name, for `client_dep(name)`. The one
            named `default` is that of `ClientDep`.
        lifespan: The app's own lifespan. It runs inside; the state it yields reaches requests as without taskq.

    Raises:
        ConfigurationError: `taskq` is neither a `TaskQ` nor a mapping of names to them.

    Example:
        `app = FastAPI(lifespan=taskq_lifespan(taskq))`
    """
    taskqs = _by_name(taskq)

    @asynccontextmanager
    async def opened(app: AppT) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            for each in dict.fromkeys(taskqs.values()):
                stack.push_async_callback(each.aclose)
                await _open(each)
            stack.enter_context(registered(app, taskqs))
            state = None if lifespan is None else await stack.enter_async_context(lifespan(app))
            yield {**(state or {}), STATE_KEY: getattr(app.state, STATE_KEY)}

    return opened


def _by_name(taskq: Any) -> dict[str, TaskQ]:
    if isinstance(taskq, TaskQ):
        return {DEFAULT_NAME: taskq}
    if isinstance(taskq, Starlette):
        raise ConfigurationError(
            "taskq_lifespan takes the queue application, not the app: FastAPI(lifespan=taskq_lifespan(taskq))"
        )
    if not isinstance(taskq, Mapping) or not taskq:
        given = "an empty mapping" if isinstance(taskq, Mapping) else type(taskq).__name__
        raise ConfigurationError(f"taskq_lifespan takes a TaskQ or a mapping of names to them, got {given}")
    for name, each in taskq.items():
        if not isinstance(name, str):
            raise ConfigurationError(f"taskq_lifespan takes a mapping of names to TaskQ, got the name {name!r}")
        if not isinstance(each, TaskQ):
            raise ConfigurationError(
                f"taskq_lifespan takes a mapping of names to TaskQ, got {type(each).__name__} for {name!r}"
            )
    return dict(taskq)


async def _open(taskq: TaskQ) -> None:
    runtime = taskq.runtime
    try:
        await asyncio.to_thread(runtime.endpoint.open)  # starting an embedded server blocks
        await runtime.async_runner.run(ping())
    except (BrokerAuthenticationError, EmbeddedRedisError):
        raise
    except BrokerError as error:
        _logger.warning("the app starts without its queue, enqueueing fails until Redis is there: %s", error)
