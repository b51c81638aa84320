"""A small HTTP server for the health and metrics ports of a process.

It supports a small part of HTTP/1.1: GET and HEAD, one request per connection, with limits on size, time and number of
connections. The code that opens the port supplies the responses.
"""

import asyncio
import ipaddress
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

logger = logging.getLogger("taskq.port")

REQUEST_S = 5.0
"""Maximum seconds for a client to send its request, and again to read the response."""
REQUEST_MAX = 8192
"""Maximum size of an HTTP request in bytes."""
CONNECTIONS_MAX = 64
"""Maximum number of concurrent connections. A further one replaces the connection that waits longest for its client."""


class Request(Struct, frozen=True):
    """An HTTP request.

    Attributes:
        path: The path, without a query.
        headers: The headers by lowercase name. If a name repeats, the last value counts.
    """

    path: str
    headers: Mapping[str, str]


class Answer(Struct, frozen=True, kw_only=True):
    """An HTTP response."""

    body: bytes
    content_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] = field(default_factory=dict)


def text(words: str, status: HTTPStatus = HTTPStatus.OK) -> Answer:
    """Return a response with one line of text."""
    return Answer(
        body=f"{words}\n".encode(),
        content_type="text/plain; charset=utf-8",
        status=status,
    )


def names_this_machine(host: str) -> bool:
    """Return whether a `Host` header names this machine: `localhost`, or a loopback address such as 127.0.0.1 or [::1].

    A port that is open to all users of this machine must reject other hosts. Otherwise a web page could point its
    domain here (DNS rebinding), and its requests would count as same-origin.
    """
    name, colon, port = host.rpartition(":")
    if not colon or host.endswith("]"):
        name, port = host, ""
    if port and not port.isdigit():
        return False
    address = name[1:-1] if name.startswith("[") and name.endswith("]") else name
    try:
        # An IPv6 address must be in brackets, and other names must not.
        return name.lower() == "localhost" or ((":" in address) == (address != name) and is_loopback(address))
    except ValueError:
        return False


def is_loopback(address: str) -> bool:
    """Return whether an address can be reached from this machine only.

    Raises:
        ValueError: The text is a host name or not an address.
    """
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


Respond = Callable[[Request], Awaitable[Answer]]
Refuse = Callable[[HTTPStatus, str], Answer]


class Port:
    """Listens on a port, and passes requests to a callback.

    Args:
        respond: Returns the response to a GET or HEAD. The server removes the body for HEAD.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
        refuse: Returns the response to a request that is not valid.
    """

    def __init__(self, respond: Respond, host: str, port: int, *, refuse: Refuse) -> None:
        self._respond = respond
        self._refuse = refuse
        self._host = host
        self.port = port
        """Port that the server listens on."""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()
        self._waiting: dict[asyncio.StreamWriter, None] = {}  # connections that wait for their client, longest first

    async def start(self) -> None:
        """Start listening.

        Raises:
            OSError: The address cannot be used.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=REQUEST_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and close open connections."""
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
            if len(self._clients) <= CONNECTIONS_MAX or self._drop_longest_waiting():
                async with self._wait_for_client(writer):
                    head = await self._read(reader)
                data = await self._answer(head)
                async with self._wait_for_client(writer):
                    writer.write(data)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            writer.transport.abort()  # the client has closed the connection or is too slow
        except Exception:
            logger.exception("a request to port %d failed", self.port)
        finally:
            self._clients.discard(client)
            writer.close()

    @asynccontextmanager
    async def _wait_for_client(self, writer: asyncio.StreamWriter) -> AsyncIterator[None]:
        """Limit the time of a block that waits for the client. A further connection may end the block earlier."""
        self._waiting[writer] = None
        try:
            async with asyncio.timeout(REQUEST_S):
                yield
        finally:
            self._waiting.pop(writer, None)

    def _drop_longest_waiting(self) -> bool:
        """Make room for a further connection. Return False if every connection waits for its response.

        Otherwise, clients that send nothing could keep out health checks, and the process would be restarted.
        """
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        del self._waiting[longest]
        longest.transport.abort()
        return True

    async def _read(self, reader: asyncio.StreamReader) -> bytes | None:
        """Read the request line and the headers of a request. Return None if they are too large."""
        try:
            return await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return None

    async def _answer(self, head: bytes | None) -> bytes:
        if head is None:
            return _encoded(self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request is too large"))
        first, *lines = head.decode("latin-1").split("\r\n")
        words = first.split(" ")
        has_body = words[0] != "HEAD"
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            answer = self._refuse(HTTPStatus.BAD_REQUEST, "the request is not HTTP/1")
        elif words[0] not in ("GET", "HEAD"):
            answer = self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, "only GET and HEAD are allowed")
            answer = replace(answer, headers={**answer.headers, "Allow": "GET, HEAD"})
        else:
            pairs = (line.partition(":") for line in lines if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            answer = await self._respond(Request(words[1].partition("?")[0], headers))
        return _encoded(answer, has_body=has_body)


def _encoded(answer: Answer, *, has_body: bool = True) -> bytes:
    headers = {
        "Content-Type": answer.content_type,
        "Content-Length": str(len(answer.body)),
        "Cache-Control": "no-store",
        "Connection": "close",
        **answer.headers,
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    head = "".join(f"{line}\r\n" for line in lines).encode("latin-1") + b"\r\n"
    return head + answer.body if has_body else head
