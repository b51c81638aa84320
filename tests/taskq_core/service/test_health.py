"""Test the server of a health port: its responses, and bad clients."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskq_core.service import port
from taskq_core.service.health_server import HealthServer
from tests.clock import Clock
from tests.probing import exchange, get
from tests.rows import rows
from tests.taskq_core.worker.conftest import until


class Well:
    def report(self) -> tuple[bool, dict[str, Any]]:
        return True, {"status": "ready"}


@pytest.fixture
async def server() -> AsyncIterator[HealthServer]:
    server = HealthServer(Well(), "127.0.0.1", 0)
    await server.start()
    yield server
    await server.close()


async def test_requests_get_the_documented_answers(server: HealthServer) -> None:
    assert await get(server.port, "/livez") == (200, {"status": "alive"})
    assert (await get(server.port, "/readyz?verbose"))[0] == 200
    assert await get(server.port, "/") == (404, {"error": "unknown path; the health endpoints are /livez and /readyz"})


@pytest.mark.parametrize(("path", "status"), [("/readyz", b"200 OK"), ("/", b"404 Not Found")])
async def test_head_has_no_body(server: HealthServer, path: str, status: bytes) -> None:
    answer = await exchange(server.port, f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    assert answer.startswith(b"HTTP/1.1 " + status + b"\r\n")
    assert answer.endswith(b"\r\n\r\n")


async def test_other_methods_are_refused(server: HealthServer) -> None:
    answer = await exchange(server.port, b"POST /livez HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.startswith(b"HTTP/1.1 405 Method Not Allowed\r\n")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@rows(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\r\n\r\n", b"400"),
        (b"GET /livez\r\n\r\n", b"400"),
        (b"GET  /livez HTTP/1.1\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\n", b"400"),
        (b"\r\n\r\n", b"400"),
        (b"GET /livez HTTP/1.0\r\n\r\n", b"200"),
    ],
)
async def test_malformed_requests_are_refused(server: HealthServer, data: bytes, status: bytes) -> None:
    answer = await exchange(server.port, data)

    assert answer.split()[1] == status
    assert (await get(server.port, "/livez"))[0] == 200


async def test_a_large_request_is_refused(server: HealthServer) -> None:
    answer = await exchange(server.port, b"GET /livez HTTP/1.1\r\nX: " + b"x" * 100_000)

    assert answer == b"" or answer.split()[1] == b"431"
    assert (await get(server.port, "/livez"))[0] == 200


async def test_slow_clients_are_dropped(clock: Clock, server: HealthServer) -> None:
    """They are dropped after a while, and do not block other clients until then."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    writer.write(b"GET /livez HT")
    await until(lambda: server._clients, "it is connected")
    assert (await get(server.port, "/livez"))[0] == 200

    await clock.advance(port.REQUEST_S + 1)

    assert await reader.read() == b""
    writer.close()


async def test_a_disconnected_client_causes_no_error(server: HealthServer) -> None:
    for data in (b"", b"GET /li"):
        _, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(data)
        writer.close()

    assert (await get(server.port, "/livez"))[0] == 200


async def test_idle_connections_make_room_for_new_ones(server: HealthServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The connection that has been idle longest is closed, so that idle clients cannot keep out a health check."""
    monkeypatch.setattr(port, "CONNECTIONS_MAX", 2)
    oldest, newer = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(2)]
    await until(lambda: len(server._clients) == 2, "both are open")

    assert (await get(server.port, "/livez"))[0] == 200

    assert await oldest[0].read() == b""
    newer[1].write(b"GET /livez HTTP/1.1\r\n\r\n")
    assert (await newer[0].read()).startswith(b"HTTP/1.1 200 OK")
    oldest[1].close()
    newer[1].close()


async def test_open_connections_end_with_the_server(server: HealthServer) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
    await until(lambda: server._clients, "it is open")

    await server.close()

    assert await reader.read() == b""
    writer.close()
