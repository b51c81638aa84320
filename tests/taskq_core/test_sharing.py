"""One queue application used by several threads, and by parent and child after a fork."""

import threading

from taskq_core import TaskQ
from tests.redis_server import RedisServer


def ids(server: RedisServer) -> list[bytes]:
    return server.client.lrange("asynq:{default}:pending", 0, -1)  # type: ignore[return-value]  # a blocking client


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
