"""The exporter beside a Redis that is frozen."""

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer
from tests.taskq_core.exporter.scraping import Scraped, scrape
from tests.taskq_core.exporter.test_exporter import Exporter, HandClock, fresh, until

pytestmark = pytest.mark.redis


async def test_a_redis_that_does_not_answer_holds_up_no_scrape() -> None:
    """Nor does it take the reading that goes on with it: the next scrape has its answer."""
    with RedisServer(tcp=True) as server:
        app = TaskQ(server.url, enqueue_timeout=30)
        await app.remote("plain").adelay()
        exporter = fresh(app, timeout=30)
        server.pause()
        hung = await scrape(exporter, wait_s=0.6)  # half a second less than it waits
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


async def test_without_redis_it_says_so_at_once_and_goes_on_when_it_is_back(caplog: pytest.LogCaptureFixture) -> None:
    """It answers all the same, without series of queues rather than with old ones, and complains once."""
    clock = HandClock()
    with RedisServer(tcp=True) as server:
        app = TaskQ(server.url, enqueue_timeout=30)
        await app.remote("plain").adelay()
        exporter = Exporter(app, clock=clock)

        async def told() -> Scraped:
            clock.advance(2)
            return await scrape(exporter)

        async def is_up() -> bool:
            return (await told()).of("taskq_up") == 1  # a scrape after a failure does not wait for long

        before = await told()
        server.kill()
        without = [await told(), await told()]
        server.start()
        await until(is_up)
        after = await scrape(exporter)
        await app.aclose()

    assert "asynq_queue_size" in before.samples
    assert [each.of("taskq_up") for each in without] == [0, 0]
    assert not [name for each in without for name in each.samples if name.startswith("asynq_")]
    assert 1 <= after.of("taskq_exporter_failures_total") <= 2, "one that took long is shared by the next"
    assert caplog.text.count("queues cannot be read") == 1
