"""Processes that fork after the application was used, as a web server with workers does."""

import asyncio
import multiprocessing
import os
import threading
import traceback
from collections.abc import Callable, Iterator

import pytest

from taskq_core import TaskQ
from tests.redis_server import RedisServer

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
    """Enqueue tasks and read each back: a reply that was another's would name another task."""
    task = app.remote("work", retention=600)
    for number in range(count):
        handle = task.delay(whose=whose, number=number)
        info = handle.refresh()
        assert (info.id, info.payload) == (handle.id, f'{{"whose":"{whose}","number":{number}}}'.encode())


async def enqueue_and_look_async(app: TaskQ, whose: str) -> None:
    """As `enqueue_and_look`, from coroutines."""
    task = app.remote("work", retention=600)

    async def one(number: int) -> None:
        handle = await task.adelay(whose=whose, number=number)
        info = await handle.arefresh()
        assert (info.id, info.payload) == (handle.id, f'{{"whose":"{whose}","number":{number}}}'.encode())

    await asyncio.gather(*(one(number) for number in range(EACH)))
    await app.aclose()


def fork(work: Callable[[], None]) -> int:
    """Run something in a child that ends with 0 if it went well; return its process id."""
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
    """Also while threads of the parent are in the midst of a call, as with preloaded web applications."""
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
    assert ids <= {client["id"] for client in redis_server.client.client_list()}, "the parent's still stand"


def test_children_of_multiprocessing(app: TaskQ, redis_server: RedisServer) -> None:
    """Also those of a child that has used the application itself."""
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
    """The parent has used coroutines before, its children run event loops of their own."""
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
