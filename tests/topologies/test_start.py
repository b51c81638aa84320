"""Test for which real servers a starting worker waits, and which end its start."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from taskq_core import TaskQ
from taskq_core.worker import Worker, WorkerConfig
from tests.redis_server import RedisServer, TlsFiles
from tests.topologies.test_connections import authority, files, server

__all__ = ["authority", "files", "server"]

pytestmark = [pytest.mark.redis, pytest.mark.usefixtures("long_connect_timeout")]


@pytest.fixture(scope="module")
def plain() -> Iterator[RedisServer]:
    with RedisServer(tcp=True) as server:
        yield server


@pytest.fixture(scope="module")
def sentinel(plain: RedisServer) -> Iterator[RedisServer]:
    with RedisServer(sentinel_of=plain) as sentinel:
        yield sentinel


@pytest.fixture
def unused() -> Iterator[int]:
    """A port that refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


async def start(url: str) -> tuple[str, str]:
    """Start a worker. Return whether it waits or has ended, and why."""
    worker = Worker(TaskQ(url), WorkerConfig(with_scheduler=False))
    running = asyncio.create_task(worker.arun())
    try:
        async with asyncio.timeout(30):
            while not running.done():
                _, body = worker.report()
                if body["status"] not in ("starting", "draining"):
                    return body["status"], body.get("reason", "")
                await asyncio.sleep(0.01)
        return f"ended with {running.result()}", ""
    finally:
        worker.stop()
        await running
        await worker.app.aclose()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("redis://127.0.0.1:{unused}/0", "Connect call failed"),
        ("redis://no-such-host.invalid/0", "no-such-host.invalid"),
        ("rediss://localhost:{unused}/0", "Connect call failed"),
        ("unix:///no/such/redis.sock", "/no/such/redis.sock"),
        ("redis+sentinel://127.0.0.1:{unused}/mymaster", "Connect call failed"),
        ("redis+sentinel://127.0.0.1:{sentinel}/another", "no Sentinel names the primary 'another'"),
        ("redis+cluster://127.0.0.1:{unused}", "Connect call failed"),
        ("redis://127.0.0.1:{plain}/0?password_file=/no/such/file", "cannot read the password file"),
    ],
)
async def test_a_worker_waits_for_a_redis_that_is_not_there(
    url: str, reason: str, unused: int, plain: RedisServer, sentinel: RedisServer
) -> None:
    status, found = await start(url.format(unused=unused, plain=plain.port, sentinel=sentinel.port))

    assert status == "waiting"
    assert reason in found


async def test_a_worker_waits_for_a_redis_that_does_not_answer(plain: RedisServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert (await start(f"redis://127.0.0.1:{silent.getsockname()[1]}/0"))[0] == "waiting"


@pytest.mark.parametrize(
    "url",
    [
        "redis://:wrong@127.0.0.1:{plain}/0",
        "rediss://:wrong@localhost:{tls}/0?ssl_ca_certs={ca}",
        "rediss://:secret@localhost:{tls}/0?ssl_ca_certs={other}",
        "rediss://:secret@localhost:{tls}/0?ssl_ca_certs=/no/such/ca.pem",
        "rediss://:secret@127.0.0.1:{tls}/0?ssl_ca_certs={ca}",
        "rediss+sentinel://localhost:{tls}/mymaster?ssl_ca_certs={other}",
        "rediss+cluster://localhost:{tls}?ssl_ca_certs={other}",
        "rediss://localhost:{plain}/0",
        "redis://127.0.0.1:{plain}/99",
        "redis+cluster://127.0.0.1:{plain}",
        "redis+sentinel://127.0.0.1:{plain}/mymaster",
        "redis://127.0.0.1:{sentinel}/0",
    ],
)
async def test_a_mistake_in_the_configuration_ends_the_start(
    url: str, plain: RedisServer, server: RedisServer, sentinel: RedisServer, files: TlsFiles
) -> None:
    places = {"plain": plain.port, "tls": server.port, "sentinel": sentinel.port, "ca": files.authority}

    assert await start(url.format(**places, other=files.authority.parent / "other-ca.pem")) == ("ended with 1", "")


async def test_a_port_of_another_program_ends_the_start() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as program:
        port = program.sockets[0].getsockname()[1]
        for url in (f"redis://127.0.0.1:{port}/0", f"redis://:secret@127.0.0.1:{port}/0"):
            assert (await start(url))[0] == "ended with 1"
