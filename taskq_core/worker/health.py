"""Tell over HTTP whether the worker lives and whether it works: `/livez` and `/readyz`.

`/livez` answers as long as the event loop turns. `/readyz` means work: every few seconds a real script runs on every
queue that the worker serves, and the worker is ready while they succeed, its own fetching does, and it is not stopping.
A PING would also answer from a store that refuses every task.

The server speaks just enough HTTP/1.1: one request a connection, GET and HEAD, bounded in size, time and number.
"""

import asyncio
import json
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from typing import Any

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import probe
from taskq_core.clock import Clock
from taskq_core.errors import BrokerError
from taskq_core.wire import QueueKeys

logger = logging.getLogger("taskq.worker")

CHECK_EVERY_S = 15.0
"""Seconds between two checks while all is well."""
CHECK_AGAIN_S = 2.0
"""Seconds between two checks while something is not."""
CHECK_S = 5.0
"""Seconds one check may take, all queues together."""
STALE_S = 60.0
"""Age of the last check, and of the last dequeue while slots are free, beyond which the worker is not ready."""
REQUEST_S = 5.0
"""Seconds a client gets to send its request, and to take the answer."""
REQUEST_MAX = 8192
"""Most bytes of a request."""
CONNECTIONS_MAX = 64
"""Most connections at a time. Further ones are closed at once."""


@dataclass(frozen=True, slots=True)
class Pulse:
    """What a worker says of itself.

    Attributes:
        status: `new`, `active`, `stopped` or `closed`.
        running: Tasks that run.
        concurrency: Tasks that may run at the same time.
        dequeue_age_s: Seconds since Redis last answered a dequeue, None before the first.
        is_failing: Whether the last attempt to fetch failed.
        can_take: Whether a slot is free and tasks are taken.
    """

    status: str
    running: int
    concurrency: int
    dequeue_age_s: float | None
    is_failing: bool
    can_take: bool


@dataclass(slots=True)
class QueueHealth:
    """What the last check found of one queue: pending tasks, and what is wrong ("" for nothing)."""

    pending: int = 0
    problem: str = ""


@dataclass(slots=True)
class Health:
    """Judges the health of a worker. Without input and output but for `check`.

    Args:
        queues: Key names of the queues it serves.
        pulse: Asks the worker for what it says of itself.
        clock: Source of monotonic time.
    """

    queues: Sequence[QueueKeys]
    pulse: Callable[[], Pulse]
    clock: Clock
    found: dict[str, QueueHealth] = field(default_factory=dict)
    checked_at: float | None = None

    async def check(self, runner: AsyncRunner) -> None:
        """Run a script on every queue and note what came of it."""
        found: dict[str, QueueHealth] = {}
        until = asyncio.get_running_loop().time() + CHECK_S
        for queue in self.queues:
            left_s = max(0.1, until - asyncio.get_running_loop().time())
            try:
                probed = await runner.run(probe(queue), patience_s=left_s)
            except BrokerError as error:
                found[queue.name] = QueueHealth(problem=str(error))
                continue
            needed = (queue.pending, queue.active, queue.lease, queue.wake)
            strange = [f"{key} is a {probed.strange[key]}" for key in needed if key in probed.strange]
            found[queue.name] = QueueHealth(pending=probed.pending, problem="; ".join(strange))
        self.found = found
        self.checked_at = self.clock.monotonic()

    def problem(self) -> tuple[str, str]:
        """Return the state in a word, and why the worker is not ready ("" if it is)."""
        pulse = self.pulse()
        if pulse.status != "active":
            words = {"new": "starting", "stopped": "draining", "closed": "draining"}
            word = words.get(pulse.status, pulse.status)
            return word, "no task is taken yet" if word == "starting" else "no new task is taken"
        if self.checked_at is None:
            return "starting", "the queues were not checked yet"
        for name, queue in self.found.items():
            if queue.problem:
                return "unready", f"queue {name!r}: {queue.problem}"
        if pulse.is_failing:
            return "unready", "tasks cannot be fetched"
        age_s = self.clock.monotonic() - self.checked_at
        if age_s > STALE_S:
            return "unready", f"the queues were last checked {age_s:.0f} s ago"
        if pulse.can_take and pulse.dequeue_age_s is not None and pulse.dequeue_age_s > STALE_S:
            return "unready", f"slots are free, and the last dequeue was {pulse.dequeue_age_s:.0f} s ago"
        return "ready", ""

    def report(self) -> tuple[bool, dict[str, Any]]:
        """Return whether the worker is ready, and the body that says so."""
        state, reason = self.problem()
        pulse = self.pulse()
        checked_age_s = None if self.checked_at is None else self.clock.monotonic() - self.checked_at
        body: dict[str, Any] = {
            "status": state,
            "running": pulse.running,
            "concurrency": pulse.concurrency,
            "last_dequeue_age_s": _rounded(pulse.dequeue_age_s),
            "last_check_age_s": _rounded(checked_age_s),
            "queues": {
                name: {"ok": False, "problem": queue.problem}
                if queue.problem
                else {"ok": True, "pending": queue.pending}
                for name, queue in self.found.items()
            },
        }
        if reason:
            body["reason"] = reason
        return state == "ready", body

    async def work(self, runner: AsyncRunner) -> float:
        """Check; return the seconds until the next time."""
        await self.check(runner)
        return CHECK_AGAIN_S if any(queue.problem for queue in self.found.values()) else CHECK_EVERY_S


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(max(0.0, seconds), 3)


class HealthServer:
    """Serves the health of a worker over HTTP.

    Args:
        health: What is served.
        host: Address to listen on.
        port: Port to listen on, 0 for any free one.
    """

    def __init__(self, health: Health, host: str, port: int) -> None:
        self._health = health
        self._host = host
        self.port = port
        """Port it listens on."""
        self._server: asyncio.Server | None = None
        self._clients: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        """Begin to listen.

        Raises:
            OSError: The address cannot be used.
        """
        self._server = await asyncio.start_server(self._serve, self._host, self.port, limit=REQUEST_MAX)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening, and end what is open."""
        if self._server is None:
            return
        self._server.close()
        clients = list(self._clients)
        for client in clients:
            client.cancel()
        await asyncio.gather(*clients, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        self._clients.add(client)
        try:
            if len(self._clients) <= CONNECTIONS_MAX:
                async with asyncio.timeout(REQUEST_S):
                    answer = await self._answer(reader)
                async with asyncio.timeout(REQUEST_S):
                    writer.write(answer)
                    await writer.drain()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            pass  # gone, or too slow
        except Exception:
            logger.exception("a request to the health port failed")
        finally:
            self._clients.discard(client)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader) -> bytes:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.LimitOverrunError:
            return _response(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, {"error": "the request is too large"})
        words = head.split(b"\r\n", 1)[0].split(b" ")
        answer = partial(_response, has_body=words[0] != b"HEAD")
        if len(words) != 3 or not words[2].startswith(b"HTTP/1."):
            return answer(HTTPStatus.BAD_REQUEST, {"error": "this is no HTTP/1 request"})
        method, path = words[0], words[1].partition(b"?")[0]
        if path not in (b"/livez", b"/readyz"):
            return answer(HTTPStatus.NOT_FOUND, {"error": "there are /livez and /readyz"})
        if method not in (b"GET", b"HEAD"):
            return answer(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "GET or HEAD"}, "Allow: GET, HEAD\r\n")
        status, body = HTTPStatus.OK, {"status": "alive"}
        if path == b"/readyz":
            is_ready, body = self._health.report()
            status = HTTPStatus.OK if is_ready else HTTPStatus.SERVICE_UNAVAILABLE
        return answer(status, body)


def _response(status: HTTPStatus, body: dict[str, Any], more: str = "", *, has_body: bool = True) -> bytes:
    data = json.dumps(body).encode() + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\n"
        "Cache-Control: no-store\r\n"
        "Connection: close\r\n"
        f"{more}\r\n"
    ).encode()
    return head + data if has_body else head
