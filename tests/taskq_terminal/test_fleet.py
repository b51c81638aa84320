"""Workers, schedules, task types and Redis in a terminal."""

import pytest

from taskq_core import TaskQ
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from taskq_terminal.redis_facts import RedisScreen
from taskq_terminal.schedules import ScheduleScreen, SchedulesScreen
from taskq_terminal.task import TaskScreen
from taskq_terminal.types import TypesScreen
from taskq_terminal.workers import WorkersScreen
from tests.browser.scene import Scene
from tests.redis_server import RedisServer
from tests.taskq_terminal.conftest import Open
from tests.taskq_terminal.person import Person

pytestmark = pytest.mark.redis


@pytest.fixture
def scene(taskq: TaskQ, redis_server: RedisServer) -> Scene:
    """A shop in the middle of its day, without its past."""
    scene = Scene(redis_server, taskq)
    scene._workers()
    scene._schedules()
    scene._runs()
    return scene


async def at(person: Person, key: str, kind: type) -> None:
    await person.press(key)
    await person.until(lambda: isinstance(person.look, kind) and person.look.found is not None)


@pytest.mark.usefixtures("scene")
async def test_the_screen_of_workers_shows_their_queues_and_tasks(opened: Open) -> None:
    async with opened(size=(120, 30)) as person:
        await at(person, "3", WorkersScreen)
        await person.sees("web-1:4021", "media-1:812", "2/10", "default=5,mail=3", "5d 1h")
        await person.sees("3 workers, 4 of 30 slots busy", "images:resize", "orders:fulfil")


@pytest.mark.usefixtures("scene")
async def test_a_running_task_can_be_opened_and_cancelled(opened: Open) -> None:
    async with opened(size=(120, 30)) as person:
        await at(person, "3", WorkersScreen)
        await person.press("tab")
        look = person.look
        assert isinstance(look, WorkersScreen)
        await person.until(lambda: look.chosen is not None)
        assert look.chosen is not None
        run = look.chosen[1]
        await person.press("c")
        await person.sees(f"Ask the worker of the task “{run.task_id}”")
        await person.press("n")
        await person.misses("Ask the worker")
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)
        await person.sees(run.task_id, run.name)


@pytest.mark.nightly
async def test_empty_lists_of_workers_and_schedules_show_a_message(opened: Open) -> None:
    async with opened() as person:
        await at(person, "3", WorkersScreen)
        await person.sees("No worker runs.", "No task runs.")
        await at(person, "4", SchedulesScreen)
        await person.sees("No scheduler runs, or none has a schedule.")
        await at(person, "6", TypesScreen)
        await person.sees("Nothing ran.")


@pytest.mark.usefixtures("scene")
async def test_schedules_are_listed_with_the_next_due_first(opened: Open) -> None:
    async with opened(size=(130, 24)) as person:
        await at(person, "4", SchedulesScreen)

        assert [cells[0] for cells in person.cells] == ["hooks", "thumbnails", "nightly"]
        await person.sees("@every 5m", "hooks:deliver", 'Queue("hooks")', "0 3 * * * (UTC)", "3 schedules")


@pytest.mark.usefixtures("scene")
async def test_a_schedule_is_paused_and_resumed(opened: Open, taskq: TaskQ) -> None:
    inspector = AsyncInspector(taskq)

    async with opened() as person:
        await at(person, "4", SchedulesScreen)
        await person.press("p")
        await person.sees("“hooks” is paused.")
        assert [each.id for each in await inspector.scheduler_entries() if each.is_paused] == ["hooks"]
        await person.press("p")
        await person.sees("“hooks” is resumed.")

    assert not any(each.is_paused for each in await inspector.scheduler_entries())


@pytest.mark.usefixtures("scene")
async def test_a_schedule_is_run_after_confirmation(opened: Open, taskq: TaskQ) -> None:
    inspector = AsyncInspector(taskq)

    async with opened() as person:
        await at(person, "4", SchedulesScreen)
        await person.press("r")
        await person.sees("Enqueue “hooks:deliver” now, as the schedule “hooks” does when it is due?")
        await person.press("n")
        await person.misses("Enqueue “hooks:deliver” now")
        assert "hooks" not in await inspector.queues()

        await person.press("r")
        await person.sees("Enqueue “hooks:deliver” now")
        await person.press("y")
        await person.sees("was enqueued to “hooks”.")

    assert await inspector.count("hooks", TaskState.PENDING) == 1


@pytest.mark.nightly
@pytest.mark.usefixtures("scene")
async def test_the_screen_of_a_schedule_lists_its_enqueued_tasks(opened: Open, taskq: TaskQ) -> None:
    """It also links to a task while the task is stored."""
    taskq.client.enqueue(taskq.remote("hooks:deliver", queue="hooks", task_id="fired-1").s())

    async with opened() as person:
        await at(person, "4", SchedulesScreen)
        await person.press("enter")
        await person.until(lambda: isinstance(person.look, ScheduleScreen) and person.look.found is not None)
        await person.sees("schedule hooks", "@every 5m", "fired-0", "fired-7")
        await person.press("enter")
        await person.sees("Task “fired-0” is no longer stored.")
        await person.press("down", "enter")
        await person.until(lambda: isinstance(person.look, TaskScreen) and person.look.found is not None)
        await person.sees("task fired-1 of queue hooks")


@pytest.mark.usefixtures("scene")
async def test_the_screen_of_task_types_shows_the_outcomes_of_their_runs(opened: Open) -> None:
    async with opened(size=(100, 24)) as person:
        await at(person, "6", TypesScreen)

        assert [cells[0].strip() for cells in person.cells][:2] == ["mail:receipt", "orders:fulfil"]
        await person.sees("4,980", "2.65 %")
        await person.press("right")
        await person.until(lambda: person.look.choice == 6)  # type: ignore[attr-defined]


async def test_the_screen_of_redis_shows_its_figures(opened: Open) -> None:
    async with opened() as person:
        await at(person, "7", RedisScreen)
        await person.sees("persistence", "->")  # the server of the tests keeps nothing
        await person.sees("version", "memory", "uptime", "user", "default", "may change", "yes")
        assert "tcp_port" not in person.text
        await person.press("i", "end")
        await person.until(lambda: "used_memory" in str(person.look.query_one("#text").render()))
