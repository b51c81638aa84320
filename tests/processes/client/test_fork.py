"""Test processes that fork after the application was used, as web servers with workers do."""

import asyncio
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from taskq_core import TaskQ
from taskq_core.client import preparer
from taskq_core.client.circuit import CircuitState
from taskq_core.client.preparer import new_task_id
from tests.redis_server import RedisServer
from tests.taskq_core.client.test_circuit import Bench
from tests.taskq_core.test_sharing import ids

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here"),
    pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning"),
]
CHILDREN = 4
EACH = 40


@pytest.fixture
def app(redis_server: RedisServer) -> Iterator[TaskQ]:
    app = TaskQ(redis_server.url, enqueue_timeout=30, defaults={"retention": 600})
    yield app
    app.close()


def enqueue_and_look(app: TaskQ, whose: str, count: int = EACH) -> None:
    """Enqueue tasks and read each back, to detect responses that belong to another process."""
    task = app.remote("work", retention=600)
    for number in range(count):
        handle = task.delay(whose=whose, number=number)
        info = handle.refresh()
        assert (info.id, info.payload) == (handle.id, f'{{"whose":"{whose}","number":{number}}}'.encode())


async def enqueue_and_look_async(app: TaskQ, whose: str) -> None:
    """Do the same as `enqueue_and_look` in coroutines."""
    task = app.remote("work", retention=600)

    async def one(number: int) -> None:
        handle = await task.adelay(whose=whose, number=number)
        info = await handle.arefresh()
        assert (info.id, info.payload) == (handle.id, f'{{"whose":"{whose}","number":{number}}}'.encode())

    await asyncio.gather(*(one(number) for number in range(EACH)))
    await app.aclose()


def fork(work: Callable[[], None]) -> int:
    """Run a function in a child, which exits with 0 if the function succeeds. Return the id of the process."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        work()
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def ended_well(children: list[int]) -> bool:
    return [os.waitpid(child, 0)[1] for child in children] == [0] * len(children)


def test_children_and_their_parent_enqueue_at_the_same_time(app: TaskQ, redis_server: RedisServer) -> None:
    """Threads of the parent are in the middle of calls at the fork, as in preloaded web applications."""
    enqueue_and_look(app, "before", 3)
    ids = {client["id"] for client in redis_server.client.client_list()}
    go_on = threading.Event()
    trouble: list[BaseException] = []

    def busy(name: str) -> None:
        try:
            while not go_on.is_set():
                enqueue_and_look(app, name, 1)
        except BaseException as error:
            trouble.append(error)

    threads = [threading.Thread(target=busy, args=(f"thread {number}",)) for number in range(3)]
    for thread in threads:
        thread.start()
    children = [fork(lambda number=number: enqueue_and_look(app, f"child {number}")) for number in range(CHILDREN)]
    enqueue_and_look(app, "parent")

    assert ended_well(children)
    go_on.set()
    for thread in threads:
        thread.join()
    assert trouble == []
    assert ids <= {client["id"] for client in redis_server.client.client_list()}, (
        "the connections of the parent were closed"
    )


def test_children_of_multiprocessing(app: TaskQ, redis_server: RedisServer) -> None:
    """The children of a child that has used the application work as well."""
    enqueue_and_look(app, "before", 3)
    context = multiprocessing.get_context("fork")

    def child(number: int) -> None:
        enqueue_and_look(app, f"child {number}")
        grandchild = context.Process(target=enqueue_and_look, args=(app, f"grandchild {number}"))
        grandchild.start()
        grandchild.join()
        assert grandchild.exitcode == 0

    processes = [context.Process(target=child, args=(number,)) for number in range(2)]
    for process in processes:
        process.start()
    enqueue_and_look(app, "parent")
    for process in processes:
        process.join()

    assert [process.exitcode for process in processes] == [0, 0]
    assert redis_server.client.llen("asynq:{default}:pending") == 3 + 5 * EACH


def test_workers_of_a_web_server_forked_while_its_loop_was_used(app: TaskQ, redis_server: RedisServer) -> None:
    """The parent has used coroutines before, and its children run their own event loops."""
    runner = asyncio.Runner()
    runner.run(app.remote("work").adelay(whose="before"))
    children = [
        fork(lambda number=number: asyncio.run(enqueue_and_look_async(app, f"child {number}")))
        for number in range(CHILDREN)
    ]
    runner.run(enqueue_and_look_async(app, "parent"))

    assert ended_well(children)
    runner.run(app.remote("work").adelay(whose="after"))
    runner.run(app.aclose())
    runner.close()
    assert redis_server.client.llen("asynq:{default}:pending") == 2 + (CHILDREN + 1) * EACH


def test_a_forked_child_generates_different_ids() -> None:
    while not preparer._ready_ids:  # the last id may have used up the prepared ones
        new_task_id()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(write, b"\n".join(new_task_id().encode() for _ in range(300)))
        os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        theirs = pipe.read().decode().split("\n")
    os.waitpid(child, 0)

    assert len(set(theirs) | {new_task_id() for _ in range(300)}) == 600


def in_child(work: Callable[[], object]) -> None:
    """Run a function in a forked child and fail if it fails there."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_a_forked_child_and_its_parent_can_both_enqueue(redis_server: RedisServer) -> None:
    """They do not use each other's receipts, and the parent's connection still works."""
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")
    for n in range(3):
        task.using(task_id=f"before-{n}").delay()
    connection = taskq.runtime.runner._idle[0]

    for turn in range(3):  # equal numbers of calls, so that a shared counter would be detected
        in_child(task.using(task_id=f"child-{turn}").delay)
        task.using(task_id=f"parent-{turn}").delay()
    in_child(lambda: taskq.client.enqueue_many(task.using(task_id=f"child-many-{n}").s() for n in range(300)))
    taskq.client.enqueue_many(task.using(task_id=f"parent-many-{n}").s() for n in range(300))

    assert len(set(ids(redis_server))) == 3 + 2 * 303
    assert taskq.runtime.runner._idle[0] is connection
    taskq.close()


def test_children_that_race_lose_nothing(redis_server: RedisServer) -> None:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")
    task.delay()
    children = []
    for index in range(4):
        child = os.fork()
        if child == 0:
            try:
                for n in range(50):
                    task.using(task_id=f"{index}-{n}").delay()
            finally:
                os._exit(0)
        children.append(child)
    for n in range(50):
        task.using(task_id=f"parent-{n}").delay()
    for child in children:
        os.waitpid(child, 0)
    taskq.close()

    assert len(ids(redis_server)) == 1 + 5 * 50


def test_a_child_may_use_separate_event_loops(redis_server: RedisServer) -> None:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")

    async def work(name: str) -> None:
        await asyncio.gather(*[task.using(task_id=f"{name}-{n}").adelay() for n in range(20)])

    asyncio.run(work("before"))
    in_child(lambda: asyncio.run(work("child")))
    asyncio.run(work("after"))
    taskq.close()

    assert len(set(ids(redis_server))) == 60


def test_the_circuit_breaker_of_a_forked_child_is_closed() -> None:
    """At the fork, a thread that does not exist in the child may have held the breaker's lock."""
    bench = Bench()
    bench.fail(3)
    read, write = os.pipe()
    with bench.circuit._lock:
        child = os.fork()
        if child == 0:  # pragma: no cover - the child's coverage is not kept
            os.write(write, bench.circuit.state.encode())
            os._exit(0)
    os.waitpid(child, 0)

    assert os.read(read, 100) == b"closed"
    os.close(read)
    os.close(write)
    assert bench.circuit.state is CircuitState.OPEN
