"""Tell over HTTP whether a process lives and whether it works: `/livez` and `/readyz`.

`/livez` answers as long as the event loop turns. What `/readyz` says is judged by whoever is asked: `worker.health`,
`scheduler.health`.

The server speaks just enough HTTP/1.1: one request a connection, GET and HEAD, bounded in size, time and number.
"""

import asyncio
import json
import logging
from functools import partial
from http import HTTPStatus
from typing import Any, Protocol

from taskq_core.errors import ConfigurationError
from taskq_core.settings import check_whole

logger = logging.getLogger("taskq.health")

REQUEST_S = 5.0
"""Seconds a client gets to send its request, and to take the answer."""
REQUEST_MAX = 8192
"""Most bytes of a request."""
CONNECTIONS_MAX = 64
"""Most connections at a time. Further ones are closed at once."""


class Judge(Protocol):
    """Says how a process is."""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether it is ready, and the body that says so."""
        ...


def check_health_address(host: object, port: object) -> None:
    """Check where health is to be told.

    Raises:
        ConfigurationError: The host is blank, or the port is neither None nor a number from 0 to 65535.
    """
    if port is not None:
        check_whole("health_port", port, least=0, most=65_535)
    if not isinstance(host, str) or not host.strip():
        raise ConfigurationError(f"health_host must be an address, got {host!r}")


async def open_health_server(what: str, health: Judge, host: str, port: int | None) -> "HealthServer | None":
    """Begin to tell how a process is; None without a port.

    Raises:
        OSError: The address cannot be used. That was logged.
    """
    if port is None:
        return None
    server = HealthServer(health, host, port)
    try:
        await server.start()
    except (OSError, UnicodeError) as error:
        logger.error("the %s cannot start: its health cannot be told at %s:%d: %s", what, host, port, error)
        raise OSError(str(error)) from error
    logger.info("health is told at http://%s:%d/livez and /readyz", host, server.port)
    return server


class HealthServer:
    """Serves the health of a process over HTTP.

    Args:
        health: What is served.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(self, health: Judge, host: str, port: int) -> None:
        self._health = health
        self._host = host
        self.port = port
        """Port it listens on."""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: The address cannot be used.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=REQUEST_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        try:
            if len(self._clients) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S):
                    answer = await self._answer(reader)
                async with asyncio.timeout(REQUEST_S):
                    writer.write(answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone, or too slow
        except Exception:
            logger.exception("a request to the health port failed")
        finally:
            self._clients.discard(client)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "the request is too large"})
        words = head.split(b"\r\n", 1)[0].split(b" ")
        answer = partial(_response, has_body=words[0] != b"HEAD")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return answer(HTTPStatus.BAD_REQUEST, {"error": "this is no HTTP/1 request"})
        method, path = words[0], words[1].partition(b"?")[0]
        if path not in (b"/livez", b"/readyz"):
            return answer(HTTPStatus.NOT_FOUND, {"error": "there are /livez and /readyz"})
        if method not in (b"GET", b"HEAD"):
            return answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET or HEAD"}, "Allow: GET, HEAD\r\n")
        status, body = HTTPStatus.OK, {"status": "alive"}
        if path == b"/readyz":
            is_ready, body = self._health.report()
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return answer(status, body)


def _response(status: HTTPStatus, body: dict[str, Any], more: str = "", *, has_body: bool = True) -> bytes:
    data = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        f"{more}\r\n"
    ).encode()
    return head + data if has_body else head
