"""All queues in a terminal."""

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from tests.redis_server import RedisServer
from tests.taskq_terminal.conftest import Open, Put
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis


def row(person: Person, name: str) -> list[str]:
    return next(cells for cells in person.cells if cells[0] == name)


async def test_queues_are_listed_by_name_with_their_tasks(opened: Open, enqueued: Put) -> None:
    for number in range(3):
        enqueued(f"a{number}")
    enqueued("b", queue="images", run_after=600)

    async with opened() as person:
        assert [cells[0] for cells in person.cells] == ["images", "mail"]
        assert row(person, "mail")[3].strip() == "3"
        bars = [row(person, name)[2].strip() for name in ("mail", "images")]
        assert set("".join(bars)) == {"█"}
        assert len(bars[0]) > 2 * len(bars[1]) > 0, "the bar of the largest is the longest"
        await person.sees("pend 3", "sched 1", "2 queues, by name")


async def test_the_selected_queue_is_shown_in_detail(opened: Open, enqueued: Put, redis_server: RedisServer) -> None:
    enqueued("a")
    enqueued("b", queue="images", run_after=600)
    redis_server.client.set("asynq:{mail}:processed", 4711)
    redis_server.client.set("asynq:{mail}:failed", 12)

    async with opened() as person:
        await person.press("down")

        await person.sees("ever 4,711 ran, 12 failed")


async def test_an_empty_list_of_queues_shows_a_message(opened: Open) -> None:
    async with opened() as person:
        await person.sees("There is no queue yet")


async def test_an_unreadable_queue_does_not_hide_other_queues(
    opened: Open, enqueued: Put, redis_server: RedisServer
) -> None:
    enqueued("a")
    enqueued("b", queue="images")
    redis_server.client.set("asynq:{images}:scheduled", "of another type")

    async with opened() as person:
        assert row(person, "images")[1] == "damaged"
        assert row(person, "mail")[1] == "no worker"


async def test_queues_can_be_sorted_in_several_ways(opened: Open, enqueued: Put) -> None:
    enqueued("a", queue="aaa")
    enqueued("b", queue="zzz")
    enqueued("c", queue="zzz")

    async with opened() as person:
        assert [cells[0] for cells in person.cells] == ["aaa", "zzz"]
        await person.press("s")
        await person.sees("by tasks")

        assert [cells[0] for cells in person.cells] == ["zzz", "aaa"]


async def test_a_queue_is_paused_and_resumed_after_confirmation(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    enqueued("a")
    inspector = AsyncInspector(taskq)

    async with opened() as person:
        await person.press("p")
        await person.sees("Pause the queue “mail”?")
        await person.press("n")
        await person.misses("Pause the queue")
        assert not (await inspector.queue_info("mail")).is_paused

        await person.press("p")
        await person.sees("Pause the queue “mail”?")
        await person.press("y")
        await person.sees("Queue “mail” is paused")
        assert (await inspector.queue_info("mail")).is_paused
        await person.until(lambda: row(person, "mail")[1] == "paused")

        await person.press("p")
        await person.sees("Let workers take tasks of the queue “mail” again?")
        await person.press("enter")
        await person.sees("Queue “mail” is resumed")
        assert not (await inspector.queue_info("mail")).is_paused


async def test_a_queue_is_deleted_after_confirmation(opened: Open, enqueued: Put, taskq: TaskQ) -> None:
    """Enter presses the button that does no harm."""
    enqueued("a")
    enqueued("b")
    inspector = AsyncInspector(taskq)

    async with opened() as person:
        await person.press("d")
        await person.sees("Delete the queue “mail” with its 2 tasks?")
        await person.press("enter")
        await person.misses("Delete the queue")
        assert await inspector.queues() == ["mail"]

        await person.press("d")
        await person.sees("Delete the queue “mail” with its 2 tasks?")
        await person.press("y")
        await person.sees("Queue “mail” is deleted, and 2 tasks with it.")
        await person.sees("There is no queue yet")
        assert await inspector.queues() == []


async def test_enter_and_a_click_open_the_tasks_of_a_queue(opened: Open, enqueued: Put) -> None:
    enqueued("a1")

    async with opened() as person:
        await person.press("enter")
        await person.sees("queue mail", "a1")
        await person.press("escape")
        await person.sees("1 queue, by name")
        await person.click("#table", offset=(3, 1))
        await person.sees("queue mail", "a1")


@pytest.mark.nightly
async def test_the_count_of_very_many_groups_is_marked_as_incomplete(
    opened: Open, enqueued: Put, redis_server: RedisServer
) -> None:
    enqueued("a", aggregate="g")
    pipeline = redis_server.client.pipeline()
    for number in range(1100):
        pipeline.sadd("asynq:{mail}:groups", f"g{number}")
        pipeline.zadd(f"asynq:{{mail}}:g:g{number}", {"m": 1})
    pipeline.execute()

    async with opened() as person:
        await person.sees("group 1,000+", "1,101 groups, the tasks of 1,000 are counted")
        assert person.cells[0][3].strip() == "1,000+"
        await person.press("enter")
        await person.sees("group 1,000+", "1,101 groups; n continues")
