"""Test that equal tasks of Go and Python programs are recognized by their id, and which payloads differ."""

from typing import Any

import pytest

from taskq_core import DuplicateTaskError, TaskIdConflictError, TaskQ
from taskq_core.wire import build_message, encode_message
from tests.redis_server import RedisServer

pytestmark = pytest.mark.redis

PAIRS: dict[str, tuple[dict[str, Any], bytes, bool]] = {
    "fields in another order": ({"name": "x", "id": 7}, b'{"id":7,"name":"x"}', False),
    "an ampersand": ({"name": "a&b", "id": 7}, b'{"name":"a\\u0026b","id":7}', False),
    "a whole float": ({"name": "x", "id": 1.0}, b'{"name":"x","id":1}', False),
    "the same bytes": ({"name": "x", "id": 7}, b'{"name":"x","id":7}', True),
}
"""Arguments in Python, the bytes of Go's `json.Marshal` for the same values, and whether both have the same lock."""


def go_enqueues(server: RedisServer, app: TaskQ, task_id: str, payload: bytes, *, is_unique: bool = False) -> bool:
    """Take the documented steps of Go's client. Return whether it enqueued the task."""
    queue = app.runtime.keys.queue("default")
    lock = queue.unique("t", payload) if is_unique else ""
    if lock and not server.client.set(lock, task_id, nx=True, ex=60):
        return False
    if server.client.exists(queue.task(task_id)):
        return False
    message = build_message(type="t", id=task_id, queue="default", payload=payload, unique_key=lock)
    values: dict[Any, Any] = {"msg": encode_message(message), "state": "pending", "pending_since": 1}
    server.client.hset(queue.task(task_id), mapping=values | ({"unique_key": lock} if lock else {}))
    server.client.lpush(queue.pending, task_id)
    return True


@pytest.mark.parametrize(("arguments", "payload", "is_same"), PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("first", ["Go", "Python"])
def test_a_lock_recognizes_equal_bytes_and_an_id_any_payload(
    redis_server: RedisServer, first: str, arguments: dict[str, Any], payload: bytes, is_same: bool
) -> None:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)
    task = app.remote("t")
    locked, named = task.using(unique_for=60), task.using(task_id="order-7")
    if first == "Go":
        assert go_enqueues(redis_server, app, "a", payload, is_unique=True)
        if is_same:
            with pytest.raises(DuplicateTaskError):
                locked.delay(**arguments)
        else:
            locked.delay(**arguments)
        assert go_enqueues(redis_server, app, "order-7", payload)
        with pytest.raises(TaskIdConflictError):
            named.delay(**arguments)
    else:
        locked.delay(**arguments)
        assert go_enqueues(redis_server, app, "a", payload, is_unique=True) is not is_same
        named.delay(**arguments)
        assert not go_enqueues(redis_server, app, "order-7", payload)
    app.close()


def test_a_registered_task_stores_its_arguments_in_the_order_of_its_parameters(redis_server: RedisServer) -> None:
    app = TaskQ(redis_server.unix_url, enqueue_timeout=30)

    @app.task(name="t")
    def work(number: int, name: str) -> None: ...

    assert work.encode((), {"name": "x", "number": 7}) == b'{"number":7,"name":"x"}'
    app.close()
