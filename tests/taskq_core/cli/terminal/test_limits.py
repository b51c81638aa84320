"""Test limits of tasks in the terminal dashboard: their current use, and changing their numbers."""

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import limits
from taskq_core.cli.terminal.limits import LimitsScreen
from taskq_core.cli.terminal.tasks import TasksScreen
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from tests.redis_server import RedisServer
from tests.taskq_core.cli.terminal.conftest import Open, Put
from tests.taskq_core.cli.terminal.person import Person

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


async def changed(taskq: TaskQ, queue: str) -> dict[str, str]:
    return {f"{each.kind} {each.name}": each.changed for each in await AsyncInspector(taskq).limits(queue)}


@pytest.mark.usefixtures("limited")
async def test_those_for_which_something_waits_stand_first(opened: Open) -> None:
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
async def test_another_number_is_set_after_a_question_and_taken_back(opened: Open, taskq: TaskQ) -> None:
    async with opened() as person:
        await at(person)
        await person.press("s")
        await person.sees("The concurrency of “mail:send” in the queue “mail”")
        for wrong, said in (
            ("5/m", "must be a whole number, got '5/m'"),
            ("0", "must be between 1 and 1000000000, got 0"),
        ):
            await person.types(wrong)
            await person.sees(said)
        await person.types("2")
        await person.sees("Set the concurrency of “mail:send” in the queue “mail” to 2? The value in the code is 1.")
        await person.press("n")
        await person.misses("Set the concurrency")
        assert await changed(taskq, "mail") == {"concurrency mail:send": ""}

        await person.press("s")
        await person.types("2")
        await person.sees("Set the concurrency")
        await person.press("y")
        await person.sees("The concurrency of “mail:send” in the queue “mail” is now 2.")
        assert await changed(taskq, "mail") == {"concurrency mail:send": "2"}

        await person.until(lambda: "Clear" in person.foot)
        await person.press("c")
        await person.sees("from 2 to the value in the code, 1?")
        await person.press("y")
        await person.sees("has the value from the code")
        assert await changed(taskq, "mail") == {"concurrency mail:send": ""}
        await person.until(lambda: "Clear" not in person.foot)


@pytest.mark.usefixtures("limited")
async def test_a_rate_is_set_and_a_sequence_has_no_number(opened: Open, taskq: TaskQ) -> None:
    async with opened() as person:
        await at(person)
        await person.press("down", "s")
        await person.sees("The rate of “bank:ask”")
        await person.types("often")
        await person.sees("must be a number and a period")
        await person.types("5/10s")
        await person.sees("to 5/10s? The value in the code is 100/m, 10 at once.")
        await person.press("y")
        await person.sees("is now 5/10s.")
        assert (await changed(taskq, "bank"))["rate bank:ask"].startswith("5/10s")

        await person.press("down")
        await person.until(lambda: "Set" not in person.foot)
        await person.press("s")
        assert len(person.app.screen_stack) == 2, "no question is asked"


@pytest.mark.usefixtures("limited")
async def test_those_of_one_queue_alone(opened: Open) -> None:
    async with opened() as person:
        await person.sees("bank")
        await person.press("L")
        await person.until(lambda: isinstance(person.look, LimitsScreen) and person.look.found is not None)
        await person.sees("limits of queue bank, 0 tasks wait", "bank:ask", "bank:book")
        assert "mail:send" not in person.text


@pytest.mark.nightly
@pytest.mark.usefixtures("limited")
async def test_they_fit_a_narrow_terminal(opened: Open) -> None:
    async with opened(size=(40, 12)) as person:
        await at(person)
        await person.sees("mail:send", "conc", "Waiting")
        await person.press("s")
        await person.sees("The concurrency of")
        await person.types("3")
        await person.sees("(y)", "(n)")


@pytest.mark.nightly
@pytest.mark.usefixtures("limited")
async def test_a_queue_whose_limits_cannot_be_read_hides_no_other(opened: Open, redis_server: RedisServer) -> None:
    redis_server.client.set("taskq:{bank}:limits", "x")

    async with opened() as person:
        await at(person)
        await person.sees("mail:send", "Limits that cannot be read: bank.")


async def test_nothing_is_offered_where_nothing_may_be_changed(opened: Open, limited: None) -> None:
    async with opened(read_only=True) as person:
        await at(person)
        await person.sees("mail:send")
        assert "Set" not in person.foot
        await person.press("s")
        assert len(person.app.screen_stack) == 2


async def test_where_there_is_none_it_says_so(opened: Open, enqueued: Put) -> None:
    enqueued("a")

    async with opened() as person:
        await at(person)
        await person.sees("No task has a limit.")
