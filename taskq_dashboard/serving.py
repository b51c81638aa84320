"""Serve the dashboard for `taskq dashboard`.

Without a login everyone who reaches the socket may use the dashboard, so it must listen on the loopback interface, and
the `Host` of requests must be this machine. Otherwise a page on the internet could let its own host name resolve to
this machine (DNS rebinding), and the browser would treat both as the same origin.
"""

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from taskq_core import ConfigurationError, TaskQ, TaskQError
from taskq_core.cli.plugin import RedisWait, is_loopback, names_this_machine, run_service, signal_handlers
from taskq_core.settings.language import gettext, translated_with
from taskq_dashboard import Login, taskq_dashboard
from taskq_dashboard.languages import catalogue, language_of

GRACE_S = 2
"""Seconds for which the server waits for open pages when it stops."""


def serve(
    taskq: TaskQ,
    *,
    host: str,
    port: int,
    read_only: bool,
    login: Login | None,
    wait_for_redis: bool,
    ready: Callable[[str], None],
) -> None:
    """Serve the dashboard until SIGINT or SIGTERM. While Redis is unavailable, the pages say so.

    Args:
        taskq: The queue application.
        host: Address or name to listen at.
        port: Port to listen at; 0 takes a free one.
        read_only: Whether all changes are refused.
        login: Authenticates a request. None: no login.
        wait_for_redis: Whether to wait at the start until Redis answers. False: raise the error.
        ready: Called with the address of the home page once the server listens.

    Raises:
        ConfigurationError: The dashboard has no login and would be open to other machines, or the address cannot be
            used.
        BrokerError: Redis refused the dashboard at the start, or cannot be reached and must not be waited for.
    """
    taskq.import_tasks()
    listener = _listening(host, port, is_open=login is None)
    with listener:
        app: ASGIApp = _app(taskq, read_only=read_only, login=login)
        if login is None:
            app = LocalOnly(app)
        server = _Server(
            uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_S, server_header=False)
        )
        ready(_address(host, listener.getsockname()[1]))
        run_service(_serve(taskq, server, listener, wait_for_redis=wait_for_redis))


class _Server(uvicorn.Server):
    """A server that leaves signals to its caller. uvicorn's own handlers end the process with the signal."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle no signals."""
        yield


async def _serve(taskq: TaskQ, server: uvicorn.Server, listener: socket.socket, *, wait_for_redis: bool) -> None:
    stop = asyncio.Event()

    def on_signal() -> None:
        server.should_exit, server.force_exit = True, server.should_exit
        stop.set()

    with signal_handlers(dict.fromkeys((signal.SIGTERM, signal.SIGINT), on_signal)):
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await RedisWait(taskq.runtime.async_runner, "dashboard", stop, is_enabled=wait_for_redis).run()
        except TaskQError:
            server.should_exit = True
            raise
        finally:
            await serving
            await taskq.aclose()


def local_app(taskq: TaskQ, *, read_only: bool) -> ASGIApp:
    """Return a dashboard without a login that answers only requests from this machine."""
    return LocalOnly(_app(taskq, read_only=read_only, login=None))


def _app(taskq: TaskQ, *, read_only: bool, login: Login | None) -> FastAPI:
    dashboard = taskq_dashboard(taskq, read_only=read_only, login=login, allow_anonymous=login is None)
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.mount("/", dashboard)
    return app


class LocalOnly:
    """An ASGI app that refuses requests whose `Host` is not this machine.

    Args:
        app: Answers the other requests.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] == "lifespan" or names_this_machine(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            with translated_with(catalogue(language_of(Request(scope)))):
                text = gettext(
                    "the dashboard answers only at localhost and addresses of this machine, such as 127.0.0.1"
                )
            refusal = PlainTextResponse(text, 403)
            await refusal(scope, receive, send)


def _listening(host: str, port: int, *, is_open: bool) -> socket.socket:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigurationError(f"the address {host!r} cannot be resolved: {error}") from None
    family, kind, protocol, _, address = found[0]
    if is_open and not is_loopback(str(address[0])):
        raise ConfigurationError(
            f"the dashboard has no login, and other machines can reach {host!r}: listen at 127.0.0.1, "
            "or pass a login hook with --login"
        )
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        raise ConfigurationError(f"cannot listen at {host!r}, port {port}: {error.strerror}") from None
    return listener


def _address(host: str, port: int) -> str:
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/"
