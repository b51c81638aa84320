"""Fault 31: change keys of the queue `damaged` as another program might. taskq must repair what it can derive."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import redis

from taskq_core.wire import QueueKeys
from tests.soak import program
from tests.soak.schedule import PlannedFault
from tests.soak.stage import Stage

Damage = Callable[[Any, QueueKeys, str], object]
"""A function that damages a task. It gets a redis-py client, the key names of the queue and the id of the task."""


def _retype(client: Any, key: str) -> None:
    client.delete(key)
    client.set(key, "somebody else's")


WHILE_PENDING: dict[str, tuple[bool, Damage]] = {
    "hash deleted": (False, lambda client, keys, task_id: client.delete(keys.task(task_id))),
    "taken off pending": (True, lambda client, keys, task_id: client.lrem(keys.pending, 0, task_id)),
    "message deleted": (False, lambda client, keys, task_id: client.hdel(keys.task(task_id), "msg")),
    "message garbled": (False, lambda client, keys, task_id: client.hset(keys.task(task_id), "msg", b"\xff\xff")),
    "listed twice": (True, lambda client, keys, task_id: client.lpush(keys.pending, task_id)),
    "wrong state": (True, lambda client, keys, task_id: client.hset(keys.task(task_id), "state", "archived")),
    "state deleted": (True, lambda client, keys, task_id: client.hdel(keys.task(task_id), "state")),
    "also scheduled": (True, lambda client, keys, task_id: client.zadd(keys.scheduled, {task_id: 4_000_000_000})),
    "also leased": (True, lambda client, keys, task_id: client.zadd(keys.lease, {task_id: 4_000_000_000})),
    "also active": (True, lambda client, keys, task_id: client.lpush(keys.active, task_id)),
    "hash retyped": (False, lambda client, keys, task_id: _retype(client, keys.task(task_id))),
    "pending retyped": (True, lambda client, keys, task_id: _retype(client, keys.pending)),
    "scheduled retyped": (True, lambda client, keys, task_id: _retype(client, keys.scheduled)),
    "retry retyped": (True, lambda client, keys, task_id: _retype(client, keys.retry)),
    "lease retyped": (True, lambda client, keys, task_id: _retype(client, keys.lease)),
    "active retyped": (True, lambda client, keys, task_id: _retype(client, keys.active)),
}
"""By name: whether the task must still run afterwards, and the function that damages it."""


LOST_TOGETHER = {"also scheduled", "pending retyped"}
"""Damages that are not combined: without the pending list, only `scheduled` lists the task, for the far future."""


def damaged(stage: Stage, fault: PlannedFault) -> Iterator[float]:
    """31: pause the queue and damage five tasks in five of sixteen ways. Five other tasks stay unchanged."""
    draw = random.Random(fault.seed)
    keys = stage.keys(program.DAMAGED)
    while stage.command("SET", keys.paused, "1") is None:
        yield 0.5
    names = draw.sample(sorted(WHILE_PENDING), 5)
    while set(names) >= LOST_TOGETHER:
        names = draw.sample(sorted(WHILE_PENDING), 5)
    victims = {stage.enqueue(program.victim.s(stage.slot())): name for name in names}
    for _ in range(5):
        stage.enqueue(program.victim.s(stage.slot()))
    for task_id, name in victims.items():
        survives, harm = WHILE_PENDING[name]
        try:
            if not stage.client.exists(keys.task(task_id)):
                continue  # its enqueue failed because of another fault; the damage would create a part of a task
            harm(stage.client, keys, task_id)
        except redis.OutOfMemoryError:
            pass  # the first command may have succeeded
        except redis.ResponseError:
            continue  # an earlier damage gave the key another type
        except (redis.ConnectionError, redis.TimeoutError):
            pass  # the command may have succeeded although the response was lost
        stage.ledger.write("damaged", id=task_id, how=name, survives=survives)
    yield fault.lasts_s
    while stage.command("DEL", keys.paused) is None:
        yield 0.2
