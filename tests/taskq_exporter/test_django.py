"""Test the `/metrics` view of a Django site."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from django.http import HttpRequest
from django.test import RequestFactory

from taskq_core import TaskQ
from taskq_django import taskq
from taskq_exporter import ExporterConfig
from taskq_exporter.django import metrics_view
from tests.redis_server import RedisServer
from tests.taskq_exporter.scraping import Scraped

pytestmark = pytest.mark.redis


def is_prometheus(request: HttpRequest) -> bool:
    return request.headers.get("Authorization") == "Bearer let-me-in"


def test_metrics_are_served_only_to_permitted_requests(redis: RedisServer, rf: RequestFactory) -> None:
    app = TaskQ(redis.unix_url, enqueue_timeout=30)
    app.remote("plain").delay()
    app.close()
    view = metrics_view(taskq, allow=is_prometheus, config=ExporterConfig(timeout=60))

    response = view(rf.get("/metrics", headers={"Authorization": "Bearer let-me-in"}))
    refused = [view(rf.get("/metrics")), metrics_view(taskq)(rf.get("/metrics"))]

    assert response["Content-Type"].startswith("text/plain")
    assert Scraped(response.content.decode()).by("asynq_queue_size", "queue") == {"default": 1}
    assert [each.status_code for each in refused] == [403, 403]
    assert view(rf.post("/metrics")).status_code == 405


def test_queues_beyond_the_maximum_have_no_metrics(redis: RedisServer, rf: RequestFactory) -> None:
    app = TaskQ(redis.unix_url, enqueue_timeout=30)
    for queue in ("a", "b", "c"):
        app.remote("plain", queue=queue).delay()
    app.close()

    config = ExporterConfig(max_queues=1, timeout=60)

    response = metrics_view(taskq, allow=lambda request: True, config=config)(rf.get("/metrics"))

    assert Scraped(response.content.decode()).by("asynq_queue_size", "queue") == {"a": 1}


def test_concurrent_scrapes_share_one_collection(
    redis: RedisServer, rf: RequestFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("taskq_exporter.exporter.FRESH_S", 600.0)
    taskq.remote("plain").delay()
    view = metrics_view(taskq, allow=lambda request: True, config=ExporterConfig(timeout=60))

    with ThreadPoolExecutor(5) as pool:
        found = [Scraped(each.content.decode()) for each in pool.map(view, [rf.get("/metrics") for _ in range(10)])]

    assert {each.of("taskq_up") for each in found} == {1}
    assert {each.of("taskq_exporter_readings_total") for each in found} == {1}
