"""Test limits of tasks in the terminal dashboard."""

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import limits
from taskq_core.wire import TaskState
from taskq_terminal.limits import LimitsScreen
from taskq_terminal.tasks import TasksScreen
from tests.redis_server import RedisServer
from tests.taskq_terminal.conftest import Open, Put
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis


@pytest.fixture
async def limited(taskq: TaskQ, enqueued: Put) -> None:
    """Three limits in two queues; of one, two tasks wait."""
    for number in range(3):
        enqueued(f"m{number}", concurrency=1)
    enqueued("b", name="bank:ask", queue="bank", rate_limit="100/m")
    enqueued("s", name="bank:book", queue="bank", sequence=("to"))
    keys = taskq.runtime.keys
    await taskq.runtime.async_runner.run(limits.declare_limits(keys.queue("bank"), {"r:bank%3Aask": "b/100/60000/10"}))
    await taskq.runtime.async_runner.run(limits.declare_limits(keys.queue("mail"), {"c:mail%3Asend": "1"}))


async def at(person: Person) -> None:
    """Look at the limits of all queues."""
    await person.press("8")
    await person.until(lambda: isinstance(person.look, LimitsScreen) and person.look.found is not None)


@pytest.mark.usefixtures("limited")
async def test_limits_with_waiting_tasks_are_listed_first(opened: Open) -> None:
    async with opened() as person:
        await at(person)

        await person.sees("limits, 2 tasks wait")
        assert [[cell.strip() for cell in row] for row in person.cells] == [
            ["mail", "concurrency", "mail:send", "1", "-", "1", "1", "2"],
            ["bank", "rate", "bank:ask", "100/m, 10 at once", "-", "1", "1", "0"],
            ["bank", "sequence", "bank:book", "-", "-", "1", "1", "0"],
        ]
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, TasksScreen) and person.look.found is not None)
        assert isinstance(person.look, TasksScreen)
        assert (person.look.queue, person.look.choice) == ("mail", TaskState.SCHEDULED)
        await person.sees("m1", "waits for a limit")


@pytest.mark.usefixtures("limited")
async def test_the_limits_of_one_queue_can_be_listed(opened: Open) -> None:
    async with opened() as person:
        await person.sees("bank")
        await person.press("L")
        await person.until(lambda: isinstance(person.look, LimitsScreen) and person.look.found is not None)
        await person.sees("limits of queue bank, 0 tasks wait", "bank:ask", "bank:book")
        assert "mail:send" not in person.text


@pytest.mark.nightly
@pytest.mark.usefixtures("limited")
async def test_limits_fit_a_narrow_terminal(opened: Open) -> None:
    async with opened(size=(40, 12)) as person:
        await at(person)
        await person.sees("mail:send", "conc", "Waiting")


@pytest.mark.nightly
@pytest.mark.usefixtures("limited")
async def test_an_unreadable_queue_does_not_hide_limits_of_other_queues(
    opened: Open, redis_server: RedisServer
) -> None:
    redis_server.client.set("taskq:{bank}:limits", "x")

    async with opened() as person:
        await at(person)
        await person.sees("mail:send", "Limits that cannot be read: bank.")


async def test_an_empty_list_of_limits_shows_a_message(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened() as person:
        await at(person)
        await person.sees("No task has a limit.")
