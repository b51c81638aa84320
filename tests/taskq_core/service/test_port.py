"""The small server of a port: which names are of this machine, and clients that do not read."""

import asyncio
import socket

import pytest

from taskq_core.service import port
from taskq_core.service.port import Answer, Port, Request, names_this_machine, text
from tests.clock import Clock
from tests.probing import exchange
from tests.rows import rows
from tests.taskq_core.worker.conftest import until

BODY = b"x" * 50_000_000
"""More than the sockets on the way hold."""


@rows(
    "host",
    [
        *("localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9876", "127.0.0.2:9876", "127.8.8.8"),
        *("[::1]", "[::1]:80"),
    ],
)
def test_local_addresses_are_recognized(host: str) -> None:
    assert names_this_machine(host)


@rows(
    "host",
    [
        *("", ":80", "evil.example", "evil.example:80", "127.0.0.1.evil.example", "127.0.0.2.evil.example:80"),
        *("localhost.evil.example", "127.0.0.1:evil", "127.0.0.1:80:80", "192.0.2.1", "10.0.0.1:80", "0.0.0.0"),
        *("[127.0.0.1]", "::1", "[2001:db8::1]", "[::1].evil.example", "[]", "127.0.0.1@evil.example", "127.0.0.256"),
    ],
)
def test_other_host_names_are_refused(host: str) -> None:
    assert not names_this_machine(host)


async def test_a_client_that_does_not_read_is_disconnected(clock: Clock) -> None:
    """Data that the client does not read in time is dropped, without blocking the connection or the server's stop."""

    async def answer(request: Request) -> Answer:
        return Answer(body=BODY, content_type="text/plain")

    server = Port(answer, "127.0.0.1", 0, refuse=lambda status, words: text(words, status))
    await server.start()
    with socket.create_connection(("127.0.0.1", server.port)) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        await until(lambda: server._clients, "it is connected")
        await clock.advance(2 * port.REQUEST_S + 1)  # for the request, and for the answer
        await until(lambda: not server._clients, "it was dropped")
        took = await asyncio.to_thread(read_all, client)
    await server.close()

    assert took < len(BODY)


async def test_connections_that_wait_for_their_response_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their requests are being answered, so a further connection is refused instead of replacing one of them."""
    monkeypatch.setattr(port, "CONNECTIONS_MAX", 2)
    gate = asyncio.Event()
    started: list[Request] = []

    async def answer(request: Request) -> Answer:
        started.append(request)
        await gate.wait()
        return text("done")

    server = Port(answer, "127.0.0.1", 0, refuse=lambda status, words: text(words, status))
    await server.start()
    request = b"GET / HTTP/1.1\r\n\r\n"
    first, second = (asyncio.create_task(exchange(server.port, request)) for _ in range(2))
    await until(lambda: len(started) == 2, "both requests are being answered")

    assert await exchange(server.port, request) == b""

    gate.set()
    for each in (first, second):
        assert (await each).startswith(b"HTTP/1.1 200 OK")
    await server.close()


def read_all(client: socket.socket) -> int:
    """Return how many bytes come until the other side ends."""
    client.settimeout(60)
    count = 0
    try:
        while data := client.recv(1 << 20):
            count += len(data)
    except ConnectionResetError:
        pass
    return count
