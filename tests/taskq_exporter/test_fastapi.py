"""Test the `/metrics` route of an app."""

import logging
from collections.abc import AsyncIterator
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException
from httpx import ASGITransport
from httpx import AsyncClient as HttpClient

from taskq_core import ConfigurationError, TaskQ
from taskq_exporter import ExporterConfig
from taskq_exporter.fastapi import metrics_router
from taskq_fastapi import taskq_lifespan
from tests.redis_server import RedisServer
from tests.taskq_exporter.scraping import Scraped

pytestmark = pytest.mark.redis


@pytest.fixture
def taskq(redis_server: RedisServer) -> TaskQ:
    return TaskQ(redis_server.url, enqueue_timeout=30)


async def prometheus(authorization: Annotated[str, Header()] = "") -> None:
    if authorization != "Bearer let-me-in":
        raise HTTPException(401)


@pytest.fixture
async def web(taskq: TaskQ) -> AsyncIterator[HttpClient]:
    app = FastAPI(lifespan=taskq_lifespan(taskq))
    app.include_router(metrics_router(taskq), prefix="/closed")
    app.include_router(metrics_router(taskq, allow_anonymous=True, config=ExporterConfig(max_queues=1)), prefix="/open")
    app.include_router(metrics_router(taskq, dependencies=[Depends(prometheus)]))
    transport = ASGITransport(app)
    async with app.router.lifespan_context(app), HttpClient(transport=transport, base_url="http://test") as web:
        yield web


async def test_metrics_are_served_only_to_permitted_requests(
    taskq: TaskQ, web: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    for queue in ("default", "low"):
        await taskq.remote("plain", queue=queue).adelay()

    response = await web.get("/metrics", headers={"Authorization": "Bearer let-me-in"})
    with caplog.at_level(logging.WARNING):
        refused = [(await web.get(path)).status_code for path in ("/metrics", "/closed/metrics")]
    capped = Scraped((await web.get("/open/metrics")).text)

    assert response.headers["content-type"].startswith("text/plain")
    assert Scraped(response.text).by("asynq_queue_size", "queue") == {"default": 1, "low": 1}
    assert refused == [401, 403]
    assert "metrics_router answers 403" in caplog.text
    assert capped.by("asynq_queue_size", "queue") == {"default": 1}
    assert not [name for name in capped.samples if name.startswith("process_")]


def test_access_must_be_configured_in_exactly_one_way(taskq: TaskQ) -> None:
    with pytest.raises(ConfigurationError, match="metrics_router"):
        metrics_router(taskq, dependencies=[Depends(prometheus)], allow_anonymous=True)
