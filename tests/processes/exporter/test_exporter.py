"""Test the exporter with a frozen or unavailable Redis."""

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_exporter.scraping import Scraped, scrape
from tests.taskq_exporter.test_exporter import Exporter, HandClock, fresh, until

pytestmark = pytest.mark.redis


async def test_a_frozen_redis_does_not_delay_a_scrape() -> None:
    """The reading continues in the background, and the next scrape gets its result."""
    with RedisServer(tcp=True) as server:
        app = TaskQ(server.url, enqueue_timeout=30)
        await app.remote("plain").adelay()
        exporter = fresh(app, timeout=30)
        server.pause()
        hung = await scrape(exporter, wait_s=0.6)  # half a second less than the timeout of the reading
        server.resume()
        back = await scrape(exporter)
        late = fresh(app, timeout=0.05)
        server.pause()
        refused = await scrape(late)
        server.resume()
        await exporter.close()
        await late.close()
        await app.aclose()

    assert (hung.of("taskq_up"), back.of("taskq_up"), refused.of("taskq_up")) == (0, 1, 0)
    assert back.of("taskq_exporter_readings_total") == 1
    assert refused.of("taskq_exporter_failures_total") == 1


async def test_without_redis_it_reports_that_at_once_and_recovers_later(caplog: pytest.LogCaptureFixture) -> None:
    """It still responds, without the series of queues, and logs the problem once."""
    clock = HandClock()
    with RedisServer(tcp=True) as server:
        app = TaskQ(server.url, enqueue_timeout=30)
        await app.remote("plain").adelay()
        exporter = Exporter(app, clock=clock.monotonic)

        async def read() -> Scraped:
            clock.advance(2)
            return await scrape(exporter)

        async def is_up() -> bool:
            return (await read()).of("taskq_up") == 1  # a scrape after a failure does not wait for long

        before = await read()
        server.kill()
        without = [await read(), await read()]
        server.start()
        await until(is_up)
        after = await scrape(exporter)
        await app.aclose()

    assert "asynq_queue_size" in before.samples
    assert [each.of("taskq_up") for each in without] == [0, 0]
    assert not [name for each in without for name in each.samples if name.startswith("asynq_")]
    assert 1 <= after.of("taskq_exporter_failures_total") <= 2, "a slow reading must be shared with the next scrape"
    assert caplog.text.count("queues cannot be read") == 1
