"""Measure how long the server takes for pages of the web dashboard if there are very many tasks.

The requests are made in the process of the app, without a network. The time includes the work of the HTTP client, so
the figures are slightly too large. Each figure is the median of 20 requests, and each request reads from Redis.
"""

import asyncio
import statistics
import time
from collections.abc import Mapping

import redis
from httpx import ASGITransport, AsyncClient

from benchmarks.inspecting import fill
from taskq_core import TaskQ
from taskq_dashboard import taskq_dashboard

PAGES: Mapping[str, str] = {
    "queues": "/",
    "queue": "/queue?name=default&days=90",
    "tasks": "/queue?name=default&state=archived",
}
_REQUESTS = 20


def dashboard_pages(url: str, *, count: int) -> dict[str, float]:
    """Archive `count` tasks. Return the milliseconds that each page takes, and the size of the first page in bytes."""
    with redis.Redis.from_url(url) as client:
        fill(client, count)
    return asyncio.run(_measured(url))


async def _measured(url: str) -> dict[str, float]:
    taskq = TaskQ(url)
    app = taskq_dashboard(taskq, allow_anonymous=True, failed_logins=None)
    figures: dict[str, float] = {}
    async with AsyncClient(transport=ASGITransport(app), base_url="http://localhost") as web:
        for name, path in PAGES.items():
            times = []
            for _ in range(_REQUESTS + 2):
                started = time.perf_counter()
                answer = await web.get(path)
                times.append((time.perf_counter() - started) * 1000)
                answer.raise_for_status()
                figures.setdefault(f"{name}_bytes", len(answer.content))
            figures[f"{name}_ms"] = statistics.median(times[2:])
    await taskq.aclose()
    return figures
