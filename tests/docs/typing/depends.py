"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any, assert_type

from fastapi import Depends

from taskq_core import TaskContext, TaskHandle, TaskQ
from taskq_fastapi import INJECTED, enable_depends

taskq = TaskQ()
depends = enable_depends(taskq)


class Session: ...


def session() -> Iterator[Session]:
    yield Session()


SessionDep = Annotated[Session, Depends(session)]


@taskq.worker_lifespan
async def opened() -> AsyncIterator[dict[str, Any]]:
    yield {}


@taskq.task
async def by_default(n: int, given: Session = Depends(session)) -> str:  # noqa: B008 - as FastAPI is written
    return ""


@taskq.task
def annotated(context: TaskContext, n: int, *, given: SessionDep = INJECTED) -> str:
    return ""


async def use() -> None:
    assert_type(await by_default.adelay(1), TaskHandle[str])
    assert_type(annotated.delay(1), TaskHandle[str])
    assert_type(annotated(1, given=Session()), str)
    by_default.delay()  # error
    annotated.delay("1")  # error
    annotated(1, given="session")  # error


depends.dependency_overrides[session] = Session
depends.dependency_overrides["session"] = Session  # error
taskq.worker_lifespan(7)  # error
