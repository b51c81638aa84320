"""The lifespan that opens an app's queue applications and closes them again.

It wraps the lifespan of the user, which may enqueue tasks from its first to its last line. The app starts even while
Redis is down, and logs a warning: most routes do not need the queue, and Redis may be back before a task is enqueued.
Errors that time does not resolve end the start, such as a refused password or an untrusted certificate.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.types import Lifespan

from taskq_core import BrokerError, ConfigurationError, TaskQ
from taskq_core.broker.operations.views import ping
from taskq_core.broker.waiting import is_temporary
from taskq_core.worker import Worker, WorkerConfig
from taskq_core.worker.background import BackgroundWorker
from taskq_fastapi.applications import DEFAULT_NAME, STATE_KEY, WORKERS_KEY, registered

AppT = TypeVar("AppT", bound=Starlette)

_logger = logging.getLogger("taskq.fastapi")

ENDING_S = 10.0
"""Seconds after a worker's grace periods until the app ends even if the worker still runs."""


def taskq_lifespan(
    taskq: TaskQ | Mapping[str, TaskQ],
    *,
    worker: bool | WorkerConfig | Mapping[str, bool | WorkerConfig] = False,
    lifespan: Lifespan[AppT] | None = None,
) -> Callable[[AppT], AbstractAsyncContextManager[Mapping[str, Any]]]:
    """Return a lifespan that gives an app its queue application, or several.

    At the start it connects to each Redis once, so that a wrong address shows in the log and the first request finds an
    open connection. At the end it closes the connections, after the lifespan of the user has ended.

    Args:
        taskq: The queue application for `ClientDep`, or several by name for `client_dep(name)`. `ClientDep` uses the
            queue application named `default`.
        worker: Whether to run a worker in this process, for development and small deployments. It has a separate thread
            and event loop, starts after the lifespan of the user has started, and stops before that lifespan ends. A
            dead worker is replaced after a pause that doubles each time; `health_router` reports it. True: a worker
            with the configuration of the settings. For several queue applications, pass a mapping by name.
        lifespan: The lifespan of the user. The state that it yields is available to requests as usual.

    The modules of the setting `INCLUDE` are imported at the start.

    Raises:
        ConfigurationError: `taskq` is neither a `TaskQ` nor a mapping of names to `TaskQ`, or a name in `worker` is
            unknown.

    Example:
        `app = FastAPI(lifespan=taskq_lifespan(taskq))`
    """
    taskqs = _by_name(taskq)
    configs = _configs(taskqs, worker)

    @asynccontextmanager
    async def opened(app: AppT) -> AsyncIterator[Mapping[str, Any]]:
        async with AsyncExitStack() as stack:
            for each in dict.fromkeys(taskqs.values()):
                each.import_tasks()
                stack.push_async_callback(each.aclose)
                await _open(each)
            workers = {name: _background(taskqs[name], config) for name, config in configs.items()}
            stack.enter_context(registered(app, STATE_KEY, taskqs))
            stack.enter_context(registered(app, WORKERS_KEY, workers))
            state = None if lifespan is None else await stack.enter_async_context(lifespan(app))
            stack.push_async_callback(_stop, workers, taskqs, configs)
            for each_worker in workers.values():
                each_worker.start()
            registered_state = {key: getattr(app.state, key) for key in (STATE_KEY, WORKERS_KEY)}
            yield {**(state or {}), **registered_state}

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


def _configs(taskqs: Mapping[str, TaskQ], worker: Any) -> dict[str, WorkerConfig | None]:
    """Return the configuration of each worker by the name of its queue application. None: use the settings."""
    by_name = worker if isinstance(worker, Mapping) else dict.fromkeys(taskqs, worker)
    for name, each in by_name.items():
        if name not in taskqs:
            known = ", ".join(map(repr, taskqs))
            raise ConfigurationError(f"worker= has {name!r}, which is not a queue application; known are {known}")
        if not isinstance(each, bool | WorkerConfig):
            raise ConfigurationError(f"worker= takes True or a WorkerConfig, got {type(each).__name__}")
    return {name: None if each is True else each for name, each in by_name.items() if each is not False}


def _config(taskq: TaskQ, config: WorkerConfig | None) -> WorkerConfig:
    return WorkerConfig.from_settings(taskq.settings) if config is None else config


def _background(taskq: TaskQ, config: WorkerConfig | None) -> BackgroundWorker:
    if not taskq.has_work:
        _logger.warning(
            "no tasks are registered, so the worker has nothing to run; list their modules in TaskQ(include=[...])"
        )
    return BackgroundWorker(lambda: Worker(taskq, _config(taskq, config)))


async def _stop(
    workers: Mapping[str, BackgroundWorker],
    taskqs: Mapping[str, TaskQ],
    configs: Mapping[str, WorkerConfig | None],
) -> None:
    """Stop all workers at once, each within its grace period. Cancelled workers return their tasks to the queue."""

    async def stop(name: str) -> None:
        config = _config(taskqs[name], configs[name])
        timeout_s = config.span("shutdown_grace") + config.span("interrupt_grace") + ENDING_S
        if not await asyncio.to_thread(workers[name].stop, timeout_s):
            _logger.error("the worker of %r did not end within %g s; the app ends without it", name, timeout_s)

    try:
        await asyncio.gather(*map(stop, workers))
    except asyncio.CancelledError:
        for each in workers.values():
            each.abort()
        raise


async def _open(taskq: TaskQ) -> None:
    runtime = taskq.runtime
    try:
        await runtime.endpoint.aopen()
        await runtime.async_runner.run(ping())
    except BrokerError as error:
        if not is_temporary(error):
            raise
        _logger.warning("the app starts without Redis, and enqueueing fails until Redis is available: %s", error)
