"""Test the exporter on its own port: its responses, and its access checks."""

from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest

from taskq_core import TaskQ
from taskq_exporter import Exporter, ExporterConfig
from taskq_exporter.serving import ExporterPort, wait_s
from tests.taskq_exporter.scraping import Scraped

pytestmark = pytest.mark.redis

Open = Callable[..., Coroutine[Any, Any, str]]


@pytest.fixture
async def open_port(app: TaskQ) -> AsyncIterator[Open]:
    """Open the port of an exporter; returns its address."""
    ports: list[ExporterPort] = []

    async def open_port(**values: Any) -> str:
        config = ExporterConfig(port=0, **values)
        port = ExporterPort(Exporter(app, config), config)
        await port.start()
        ports.append(port)
        return f"http://127.0.0.1:{port.port}"

    yield open_port
    for port in ports:
        await port.close()


async def get(address: str, **more: Any) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        return await client.get(address, **more)


async def test_metrics_and_health_are_served(app: TaskQ, open_port: Open) -> None:
    await app.remote("plain").adelay()
    address = await open_port()

    metrics = await get(f"{address}/metrics")

    assert Scraped(metrics.text).of("asynq_queue_size", queue="default") == 1
    assert metrics.headers["content-encoding"] == "gzip"
    assert [(await get(address + path)).status_code for path in ("/", "/livez", "/readyz", "/other")] == [
        *(200, 200, 200),
        404,
    ]


async def test_without_redis_the_exporter_is_live_and_not_ready() -> None:
    app = TaskQ("redis://127.0.0.1:1/0")  # a port that no other test takes
    config = ExporterConfig(port=0)
    port = ExporterPort(Exporter(app, config), config)
    await port.start()
    address = f"http://127.0.0.1:{port.port}"

    metrics = await get(f"{address}/metrics")
    states = [(await get(address + path)).status_code for path in ("/livez", "/readyz")]
    await port.close()
    await app.aclose()

    assert (metrics.status_code, Scraped(metrics.text).of("taskq_up")) == (200, 0)
    assert states == [200, 503]


async def test_a_local_port_answers_only_to_local_host_names(open_port: Open) -> None:
    """A web page whose host name resolves to this machine gets no data."""
    address = await open_port()
    port = address.rpartition(":")[2]

    told = {
        host: (await get(f"{address}/metrics", headers={"Host": host})).status_code
        for host in (
            f"localhost:{port}",
            f"[::1]:{port}",
            "127.0.0.1",
            f"evil.example:{port}",
            "127.0.0.1.evil.example",
        )
    }

    assert list(told.values()) == [200, 200, 200, 403, 403]


async def test_an_authenticated_request_may_use_any_host_name(open_port: Open) -> None:
    address = await open_port(is_open=True)

    assert (await get(f"{address}/metrics", headers={"Host": "exporter.example"})).status_code == 200


def test_the_scrape_timeout_header_limits_the_collection(subtests: pytest.Subtests) -> None:
    for said, seconds in [("10", 10), ("2.5", 2.5), ("", None), ("x", None), ("nan", None), ("-1", None)]:
        with subtests.test(said=said, seconds=seconds):
            assert wait_s(said) == seconds
