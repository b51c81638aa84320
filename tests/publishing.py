"""A durable task that waits for an approval, for tests of user interfaces that show it."""

import threading
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from taskq_core import Task, TaskContext, TaskQ
from taskq_core.testing import drain


@dataclass
class Review:
    approved: bool
    note: str = ""


def publish_task(app: TaskQ, *, timeout: timedelta | None = timedelta(days=7)) -> Task[Any, Any]:
    """Return a task that runs a step and a sub-task, and then waits for the signal `review` twice."""

    def moderate(photo_id: int) -> dict[str, int]:
        return {"photo": photo_id}

    @app.task(name="photos:resize")
    def resize(width: int) -> int:
        return width

    @app.task(name="photos:publish", retention=600, max_retry=0, signals={"review": Review})
    async def publish(context: TaskContext, photo_id: int) -> list[bool]:
        await context.astep("moderate", moderate, photo_id)
        await context.acall(resize.s(320))
        first = await context.areceive("review", Review, timeout=timeout)
        second = await context.areceive("review", Review, timeout=timeout)
        return [first.approved, second.approved]

    return publish


def drain_beside_playwright(app: TaskQ) -> None:
    """Run all due tasks in a thread without an event loop, because Playwright runs one in the test's thread."""
    draining = threading.Thread(target=drain, args=(app,))
    draining.start()
    draining.join()
