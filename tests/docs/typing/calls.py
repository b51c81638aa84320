"""Read by type checkers, never run. A line that ends in `# error` must be refused by each of them, no other may be."""

from typing import Any, assert_type

from taskq_core import CoroutineTask, Signature, Task, TaskContext, TaskHandle, TaskQ

taskq = TaskQ()


@taskq.task
def add(a: int, b: int = 2, *, c: str = "x") -> int:
    return a + b


@taskq.task(name="later", queue="low", max_retry=3)
async def later(a: int) -> list[str]:
    return []


@taskq.task
def with_context(context: TaskContext, a: int) -> str:
    return context.id


@taskq.task(retention=60)
async def later_with_context(context: TaskContext, a: int) -> bytes:
    return b""


async def use() -> None:
    # A plain function.
    assert_type(add(1, c="y"), int)
    assert_type(add.delay(1, 2), TaskHandle[int])
    assert_type(add.delay(a=1).result(timeout=5), int)
    assert_type(await add.adelay(1), TaskHandle[int])
    assert_type(await (await add.adelay(1)).aresult(), int)
    assert_type(add.s(1), Signature[int])
    assert_type(taskq.client.enqueue(add.s(1)), TaskHandle[int])
    assert_type(await taskq.async_client.enqueue(add.s(1)), TaskHandle[int])
    assert_type(taskq.client.enqueue_many(add.s(n) for n in range(3))[0], TaskHandle[Any])
    add("1")  # error
    add.delay()  # error
    add.delay("1")  # error
    add.delay(1, 2, 3)  # error
    add.delay(1, d=2)  # error
    add.si(1, c=2)  # error
    await add.adelay(None)  # error
    taskq.client.enqueue(add)  # error
    taskq.client.enqueue(add.delay(1))  # error
    await taskq.async_client.enqueue_many(add.si("1") for _ in range(3))  # error

    # A coroutine function: calling gives its coroutine, enqueueing the handle of its result.
    assert_type(await later(1), list[str])
    assert_type(await later.adelay(1), TaskHandle[list[str]])
    assert_type(later.delay(1).result(), list[str])
    later.delay("1")  # error
    await later()  # error
    len(later(1))  # error

    # The worker fills the context in.
    assert_type(with_context(1), str)
    assert_type(with_context.delay(1), TaskHandle[str])
    assert_type(await later_with_context(1), bytes)
    assert_type(await later_with_context.adelay(a=1), TaskHandle[bytes])
    with_context.delay()  # error
    with_context.delay("1")  # error
    await later_with_context.adelay(1, 2)  # error

    # Copies keep the signature.
    assert_type(add.using(queue="x").delay(1), TaskHandle[int])
    assert_type(await later.using(run_after=5).adelay(1), TaskHandle[list[str]])
    assert_type(add.s(1).using(task_id="x"), Signature[int])
    add.using(queue="x").delay("1")  # error
    await later.using(queue="x").adelay("1")  # error

    # Handles of a type fit where a handle of a wider one is wanted.
    wide: TaskHandle[object] = add.delay(1)
    wide = await later.adelay(1)
    narrow: TaskHandle[str] = add.delay(1)  # error
    print(wide, narrow)


plain: Task[[int], list[str]] = later
coroutine: CoroutineTask[[int], list[str]] = later
wrong: CoroutineTask[[int], int] = add  # error
