"""A producer that enqueues as Go Asynq's client does: with the same keys, fields and commands.

It writes no fields of taskq and pushes no token for waiting workers.
"""

import time
from typing import Any

from redis import Redis

QUEUE = "default"
PREFIX = f"asynq:{{{QUEUE}}}:"
_ENQUEUE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'msg', ARGV[1], 'state', 'pending', 'pending_since', ARGV[3])
redis.call('LPUSH', KEYS[2], ARGV[2])
return 1
"""
_SCHEDULE = """
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'msg', ARGV[1], 'state', 'scheduled')
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[3])
return 1
"""


class GoProducer:
    """Enqueues tasks to the default queue.

    Args:
        client: A client of redis-py. Its methods also accept a `pipeline` of the client.
    """

    def __init__(self, client: "Redis") -> None:
        self._client = client
        self._enqueue = str(client.script_load(_ENQUEUE))
        self._schedule = str(client.script_load(_SCHEDULE))
        client.sadd("asynq:queues", QUEUE)

    def enqueue(self, task_id: str, message: bytes, *, pipeline: Any = None) -> None:
        """Enqueue a task that is due now."""
        client = self._client if pipeline is None else pipeline
        now_ns = str(time.time_ns())
        client.evalsha(self._enqueue, 2, f"{PREFIX}t:{task_id}", f"{PREFIX}pending", message, task_id, now_ns)

    def schedule(self, task_id: str, message: bytes, start_s: int, *, pipeline: Any = None) -> None:
        """Enqueue a task that is due at a given Unix second."""
        client = self._client if pipeline is None else pipeline
        client.evalsha(self._schedule, 2, f"{PREFIX}t:{task_id}", f"{PREFIX}scheduled", message, start_s, task_id)
