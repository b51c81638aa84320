"""Measure the raw limit of Redis: a minimal client sends the same scripts and keys, without waiting for each response.

It decodes and runs no tasks and handles no errors. So no worker on the same Redis can be faster.
"""

import socket
import time
from typing import Any
from urllib.parse import urlsplit

import hiredis

from taskq_core.broker.exchange import pack, words_of
from taskq_core.broker.operations import new_tasks, runs
from taskq_core.broker.operations import operation as operation_ops
from taskq_core.broker.operations.new_tasks import NewTask, ReceiptSlot
from taskq_core.client.preparer import new_task_id
from taskq_core.wire import Keys, MessageTemplate, encode_headers

QUEUE = Keys().queue("default")


class Pipe:
    """A minimal Redis client: a socket and a parser of replies."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        if where.scheme == "unix":
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.connect(where.path)
        else:
            self._socket = socket.create_connection((where.hostname, where.port))
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._reader = hiredis.Reader()

    def send(self, operation: operation_ops.Operation[Any]) -> None:
        """Write a command."""
        self._socket.sendall(pack(words_of(operation)))

    def load(self, operation: operation_ops.Operation[Any]) -> None:
        """Load a script into Redis."""
        assert operation.script is not None
        self._socket.sendall(pack(("SCRIPT", "LOAD", operation.script.text)))
        self.receive()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def receive(self) -> Any:
        """Read a reply."""
        while (reply := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(1 << 20))
        return reply


def batches(count: int, size: int) -> list[list[NewTask]]:
    """Return `count` prepared tasks in batches, each task with a unique id and message."""
    template = MessageTemplate("bench:plain", "default", retry=25, timeout=1800)
    payload, headers = b'{"number":12345,"text":"some text"}', encode_headers({"tenant": "acme"})
    tasks = [(task_id, template.encode(task_id, payload, headers)) for task_id in (new_task_id() for _ in range(count))]
    return [[NewTask(*task) for task in tasks[start : start + size]] for start in range(0, count, size)]


def raw_enqueue(url: str, *, count: int, batch: int) -> dict[str, float]:
    """Enqueue prepared messages. Two calls are always in flight."""
    pipe = Pipe(url)
    lane = ReceiptSlot("raw")
    calls = [new_tasks.enqueue(QUEUE, tasks, lane) for tasks in batches(count, batch)]
    pipe.load(calls[0])
    started = time.perf_counter()
    pipe.send(calls[0])
    for call in calls[1:]:
        pipe.send(call)
        pipe.receive()
    pipe.receive()
    seconds = time.perf_counter() - started
    pipe.close()
    return {"tasks_per_s": count / seconds}


def raw_drain(url: str, *, count: int, concurrency: int) -> dict[str, float]:
    """Dequeue and settle tasks. Two calls are always in flight, each with half of the active tasks."""
    raw_enqueue(url, count=count, batch=200)
    share = max(1, min(200, concurrency // 2))
    lanes = [(Pipe(url), f"-{number}") for number in range(2)]
    owner = "raw"
    calls = [0, 0]

    def ask(number: int, done: list[runs.TaskRun]) -> None:
        pipe, name = lanes[number]
        calls[number] += 1
        asked = runs.dequeue(QUEUE, owner=owner, lane=name, call=calls[number], limit=share, lease_s=30)
        pipe.send(runs.settle_and_dequeue(done, asked) if done else asked)

    first = runs.dequeue(QUEUE, owner=owner, call=0, limit=1, lease_s=30)
    lanes[0][0].load(first)
    lanes[0][0].load(runs.settle_and_dequeue([("none", 1)], first))
    started = time.perf_counter()
    handed: list[list[runs.TaskRun]] = [[], []]
    ask(0, [])
    ask(1, [])
    finished, turn, empty = 0, 0, 0
    while finished < count:
        reply = lanes[turn][0].receive()
        if reply is None:
            raise SystemExit("Redis did not settle all finished tasks")
        finished += len(handed[turn])
        handed[turn] = [(task_id.decode(), calls[turn]) for task_id in reply[4::2]]
        empty = 0 if handed[turn] else empty + 1
        if empty > 4 and finished < count:
            raise SystemExit(f"only {finished} of {count} tasks were dequeued")
        ask(turn, handed[turn])
        turn = 1 - turn
    seconds = time.perf_counter() - started
    for pipe, _ in lanes:
        pipe.close()
    return {"tasks_per_s": count / seconds}
