"""Test the gauges that a worker provides to metrics exporters."""

from typing import Any

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations.actions import pause
from tests.taskq_core.worker.conftest import Read, Runner, until


async def test_an_sdk_configured_after_the_worker_started_gets_its_counts(
    app: TaskQ, start: Runner, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setattr("taskq_core.worker.gauges.REFRESH_S", 0.05)
    task = app.task(name="late:sdk")(_nothing)
    await start()
    read: Read = request.getfixturevalue("read")
    await until(lambda: read("asynq.worker.slots"), "the SDK is noticed")

    await task.adelay()

    await until(lambda: list(read("asynq.tasks.processed").values()) == [1], "the run is counted")


async def _nothing() -> None:
    pass


async def test_the_leader_reports_the_queues_and_each_worker_its_slots(app: TaskQ, start: Runner, read: Read) -> None:
    later = app.remote("later", run_after=3600)
    waiting = app.remote("waiting", queue="other")
    for _ in range(3):
        await later.adelay()
    await waiting.adelay()
    await app.runtime.async_runner.run(_pause(app))
    await start(concurrency=7, clean_every=0.05, queues={"default": 1, "other": 1})
    await start(concurrency=4, clean_every=0.05, queues={"default": 1, "other": 1})

    sizes = await until(lambda: len(found := read("asynq.queue.size")) == 14 and found, "both queues were looked at")

    assert sizes["default", "scheduled"] == 3
    assert sizes["other", "pending"] == 1
    assert sum(sizes.values()) == 4
    assert read("asynq.queue.paused") == {("default",): 0, ("other",): 1}
    assert read("asynq.queue.latency")["default",] == 0
    assert read("asynq.queue.latency")["other",] >= 0
    assert read("asynq.worker.slots") in ({(): 7}, {(): 4})  # one of them, for an SDK keeps the last of equal labels


def _pause(app: TaskQ) -> Any:
    return pause(app.runtime.keys.queue("other"))


async def test_a_gauge_shows_whether_a_scheduler_leads(app: TaskQ, start: Runner, read: Read) -> None:
    plain = await start(with_scheduler=True)
    await until(lambda: plain.status == "active", "it runs")
    nothing_to_lead = read("asynq.scheduler.leading")

    app.schedule("@every 1h", app.remote("report"), id="entry")
    await until(lambda: read("asynq.scheduler.leading") == {(): 1}, "it leads")
    assert nothing_to_lead == {}
