"""One queue application used by several threads, and by parent and child after a fork."""

import asyncio
import os
import threading
import traceback
from collections.abc import Callable

from taskq_core import TaskQ
from tests.redis_server import RedisServer


def ids(server: RedisServer) -> list[bytes]:
    return server.client.lrange("asynq:{default}:pending", 0, -1)  # type: ignore[return-value]  # a blocking client


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


def test_threads_share_a_client(redis_server: RedisServer) -> None:
    """Each thread gets the answers to its own calls, and no task is lost or doubled."""
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")
    found: list[str] = []

    def work(index: int) -> None:
        mine = [task.using(task_id=f"{index}-{n}").delay().id for n in range(40)]
        mine += taskq.client.enqueue_many(task.using(task_id=f"{index}-many-{n}").s() for n in range(500)).ids
        found.extend(mine)

    threads = [threading.Thread(target=work, args=(index,)) for index in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    taskq.close()

    assert len(found) == 6 * 540
    assert sorted(each.decode() for each in ids(redis_server)) == sorted(found)


def test_a_forked_child_and_its_parent_enqueue_both(redis_server: RedisServer) -> None:
    """Neither takes the other's receipt for its own, and the parent's connection is not disturbed."""
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")
    for n in range(3):
        task.using(task_id=f"before-{n}").delay()
    connection = taskq.runtime.runner._idle[0]

    for turn in range(3):  # as many calls in the child as in the parent, so that a shared count would show
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


def test_a_child_may_use_event_loops_of_its_own(redis_server: RedisServer) -> None:
    taskq = TaskQ(redis_server.url, enqueue_timeout=30)
    task = taskq.remote("t")

    async def work(name: str) -> None:
        await asyncio.gather(*[task.using(task_id=f"{name}-{n}").adelay() for n in range(20)])

    asyncio.run(work("before"))
    in_child(lambda: asyncio.run(work("child")))
    asyncio.run(work("after"))
    taskq.close()

    assert len(set(ids(redis_server))) == 60
