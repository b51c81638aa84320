"""Takes the pictures of the terminal dashboard that the docs show. `make screenshots` runs it.

It is a test that is run only where it is named. There is a picture of each screen, on a dark and on a light background.
The shop is the same each time; what differs are the times of day.
"""

import re
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Literal

import pytest

from taskq_core import TaskQ
from taskq_core.broker.operations import limits
from taskq_core.inspector import AsyncInspector
from taskq_core.wire import TaskState
from tests.browser.scene import Scene, registered_tasks
from tests.redis_server import RedisServer
from tests.taskq_terminal.person import Person, open_terminal

pytestmark = pytest.mark.redis
FOLDER = Path(__file__).parents[2] / "docs" / "images" / "dash"
WIDE, USUAL = (110, 28), (80, 24)
_FONTS = "ui-monospace, 'DejaVu Sans Mono', Menlo, Consolas, 'Liberation Mono', monospace"


@pytest.fixture(autouse=True)
def _nothing_is_written() -> None:
    """Render the screens, which the other tests need not do."""


@pytest.fixture
async def taskq(redis_server: RedisServer) -> AsyncIterator[TaskQ]:
    """The shop."""
    taskq = TaskQ(redis_server.unix_url, queues={"default": 3, "low": 1})
    taskq.runtime.endpoint.address = "redis://redis:6379/0"  # only the displayed address changes, not the connection
    with registered_tasks(taskq):
        yield taskq
    await taskq.aclose()


def take(person: Person, name: str, theme: str) -> None:
    """Save what is on the terminal; the picture asks no other server for a font."""
    svg = person.app.export_screenshot(title="taskq dash")
    svg = re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL)
    svg = svg.replace("Fira Code, monospace", _FONTS).replace("font-family: arial", "font-family: sans-serif")
    svg = re.sub(r"terminal-\d+-", "t-", svg)
    svg = svg.replace("<svg ", '<svg xml:space="preserve" ', 1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{name}-{theme}.svg").write_text(re.sub(r"[ \t]+$", "", svg, flags=re.MULTILINE), encoding="utf-8")


async def limit(taskq: TaskQ) -> None:
    """Limit tasks of some types, and let some of them wait; one limit has another number than its code."""
    limited = (
        ("bank:ask", {"rate_limit": "60/m"}, "r:bank%3Aask", "b/60/60000/6", 12),
        ("bank:book", {"sequence": "account"}, "s:bank%3Abook", "block", 3),
        ("report:build", {"concurrency": 2}, "c:report%3Abuild", "2", 5),
        ("search:index", {"concurrency": 8}, "c:search%3Aindex", "8", 6),
    )
    keys = taskq.runtime.keys.queue("low")
    for name, options, slot, spec, count in limited:
        task = taskq.remote(name, queue="low", **options)
        await taskq.runtime.async_runner.run(limits.declare_limits(keys, {slot: spec}))
        await taskq.async_client.enqueue_many([task.s(account=number % 2) for number in range(count)])
    await AsyncInspector(taskq).set_limit("low", "bank:ask", rate="5/m")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_screens_can_be_drawn_as_pictures(
    taskq: TaskQ, redis_server: RedisServer, theme: Literal["light", "dark"]
) -> None:
    scene = Scene(redis_server, taskq)
    scene.build()
    workflow = scene.workflow
    async with open_terminal(taskq, WIDE, theme=theme, refresh=timedelta(seconds=2)) as person:
        await person.sees("mail")
        await person.press("down", "down")
        await person.pilot.pause()
        take(person, "queues", theme)
        for key, name in (
            ("2", "all"),
            ("3", "workers"),
            ("4", "schedules"),
            ("5", "workflows"),
            ("6", "types"),
            ("7", "redis"),
        ):
            await person.press(key)
            await person.until(lambda: person.look.found is not None)
            await person.pilot.pause()
            take(person, name, theme)
        places = (
            ("tasks", ("tasks", "mail", TaskState.RETRY)),
            ("task", ("task", "mail", scene.failing.id)),
            ("groups", ("tasks", "default", TaskState.AGGREGATING)),
            ("schedule", ("schedule", "hooks")),
            ("workflow", ("workflow", workflow.queue, workflow.id)),
            ("step", ("step", workflow.queue, workflow.id, "pictures")),
        )
        for name, place in places:
            await person.press("1")
            await person.until(lambda: person.look.TOP == "queues" and person.look.found is not None)
            below = person.look
            below.go(*place)
            await person.until(lambda below=below: person.look is not below and person.look.found is not None)
            await person.pilot.pause()
            take(person, name, theme)
            if name == "tasks":
                await person.press("space", "space", "d")
                await person.sees("Delete 2 tasks")
                take(person, "question", theme)
                await person.press("escape")
                await person.press("question_mark")
                await person.sees("Tasks of one state")
                take(person, "help", theme)
                await person.press("escape")
    async with open_terminal(taskq, USUAL, theme=theme, refresh=timedelta(seconds=2)) as person:
        await person.sees("mail")
        take(person, "queues-80x24", theme)
    await limit(taskq)
    async with open_terminal(taskq, WIDE, theme=theme, refresh=timedelta(seconds=2)) as person:
        await person.press("8")
        await person.sees("bank:ask", "5/m")
        await person.pilot.pause()
        take(person, "limits", theme)
