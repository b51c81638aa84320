"""The steps of one run: read their record, count their names, store results, and decide whether the run has to wait."""

import asyncio
import math
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import datetime
from typing import Any

import msgspec

from taskq_core.broker.operations.steps import Record
from taskq_core.codec import check_step_name, encode_result
from taskq_core.errors import StepError, TaskInterrupted, TaskWaiting, WorkflowCancelledError, WorkflowFailedError
from taskq_core.execution.step_store import StepStore
from taskq_core.settings import Duration, seconds

RECORD_BYTES = 4 << 20
"""Maximum bytes of all step results of a task."""
STEPS_MAX = 1_000
"""Maximum number of steps of a task."""
REASON_CHARS = 1_000
"""Maximum length of the stored reason why sub-tasks failed."""
FAILED = b"!"
"""Prefix of a stored failure of sub-tasks. Results are JSON, which never begins with it."""
current_step: ContextVar[str] = ContextVar("taskq_current_step", default="")
"""Name of the step that runs this code, "" outside of steps."""


class Steps:
    """The steps of one run of a task.

    Args:
        store: Stores the results.
        task_id: Id of the task.
    """

    def __init__(self, store: StepStore, task_id: str) -> None:
        self.store = store
        self._task_id = task_id
        self._names: Counter[str] = Counter()
        self._record: Record = {}
        self._lock = asyncio.Lock()
        self._ahead_ms = -1.0  # Redis's clock minus the monotonic clock; -1 before the record is loaded
        self._size = 0  # bytes of the stored results
        self._attempt = 1
        self._emitted = 0  # values that this run has emitted outside of steps
        self._emitted_before = 0  # values that earlier runs of this attempt emitted there
        self._open = 0  # running steps
        self._is_waiting = False  # the run ends, because the task waits
        self._quiet = asyncio.Event()  # set while no step runs
        self._quiet.set()

    # --- the record, on the worker's event loop -----------------------------------------------------------------------

    async def _load(self) -> Record:
        async with self._lock:  # concurrent steps read it once
            if self._ahead_ms < 0:
                loaded = await self.store.load()
                self._record = loaded.record
                self._size = sum(len(value) for field, value in loaded.record.items() if field[:2] in ("s:", "k:"))
                self._attempt = loaded.attempt
                self._emitted_before = int(loaded.record.get("x", 0))
                self._ahead_ms = loaded.now_ms - time.monotonic() * 1000
        return self._record

    @property
    def _now_ms(self) -> int:
        return round(self._ahead_ms + time.monotonic() * 1000)

    async def _store(self, field: str, value: bytes, *, missed: str = "") -> bytes:
        stored = self._record[field] = await self.store.store(field, value, missed=missed)
        return stored

    def numbered(self, kind: str, what: str, name: str) -> str:
        """Check a name, and return it with a number from its second use in this run on."""
        if current_step.get():
            raise StepError(f"{what} {name!r:.120} is inside step {current_step.get()!r}; steps cannot be nested")
        check_step_name(what, name)
        number = self._count(kind + name)
        return name if number == 1 else f"{name}#{number}"

    def _count(self, name: str) -> int:
        """Count a use of a name in this run. Return the number of its uses."""
        self._names[name] += 1
        if self._names.total() > STEPS_MAX:
            raise StepError(f"a task has at most {STEPS_MAX:,} steps and waits; use `iterate` for many small items")
        return self._names[name]

    async def begin(self, name: str) -> tuple[bytes | None, int]:
        """Return the stored result of a step, and the time in Unix ms. Without a result, the caller must call `end`."""
        if self._is_waiting or self.store.is_closed:  # code that the function has started still runs
            raise TaskInterrupted
        self._open += 1
        self._quiet.clear()
        data: bytes | None = b""
        try:
            data = (await self._load()).get(f"s:{name}")
        finally:
            if data is not None:
                self._close()
        return data, self._now_ms

    def _close(self) -> None:
        self._open -= 1
        if not self._open:
            self._quiet.set()

    async def end(self, name: str, data: bytes | None, started_ms: int, *, has_failed: bool = False) -> bytes:
        """Store the result of a step that has begun. Return the JSON that is stored.

        If the step has failed, wait until all other steps have ended. The failure ends the run, and their results could
        not be stored afterwards.
        """
        try:
            if data is not None:
                return await self._keep("s", name, data, started_ms)
        finally:
            self._close()
        while has_failed and self._open:
            await self._quiet.wait()  # again if the end of a step began another one
        return b""

    async def _keep(self, kind: str, name: str, data: bytes, started_ms: int) -> bytes:
        """Store the result of a step or of sub-tasks. Return the JSON that is stored."""
        now_ms = self._now_ms
        value = b"%d %d %b" % (now_ms, max(0, now_ms - started_ms), data)
        size = self._size + len(value)
        if size > RECORD_BYTES:
            raise StepError(f"the results of all steps must be at most {RECORD_BYTES:,} bytes, got {size:,}")
        self._size = size
        return json_of(await self._store(f"{kind}:{name}", value))

    def _wait_until(self, wait: str, duration_ms: float) -> int:
        """Return the end of a wait: the stored one, or the given milliseconds from now."""
        stored = self._record.get(f"u:{wait}", b"-").partition(b" ")[0]
        return math.ceil(self._now_ms + duration_ms) if stored == b"-" else int(stored)

    async def _wait(self, wait: str, until_ms: int) -> TaskWaiting:
        """Return the exception that ends this run, once all steps that run concurrently have ended."""
        while self._open:
            await self._quiet.wait()  # again if the end of a step began another one
        self._is_waiting = True
        return TaskWaiting(wait, until_ms, self._emitted)

    # --- waits --------------------------------------------------------------------------------------------------------

    async def sleep(self, name: str, duration_or_time: Duration | datetime) -> None:
        """Return if the sleep is over. Raise `TaskWaiting` otherwise."""
        await self._load()
        if isinstance(duration_or_time, datetime):
            until_ms = self._wait_until(f"z:{name}", duration_or_time.timestamp() * 1000 - self._now_ms)
        else:
            until_ms = self._wait_until(f"z:{name}", seconds("sleep", duration_or_time) * 1000)
        if until_ms > self._now_ms:
            raise await self._wait(f"z:{name}", until_ms)

    async def receive(self, name: str, timeout: Duration | None) -> tuple[str, bytes | None]:
        """Return the name and number of the next signal, and its value as JSON, None after the timeout.

        Raise `TaskWaiting` if it has not arrived.
        """
        numbered = f"{name}#{self._count('r:' + name)}"
        field = f"r:{numbered}"
        record = await self._load()
        data = record.get(field)
        if data is None:
            if timeout is None:
                raise await self._wait(field, 0)
            until_ms = self._wait_until(field, seconds("timeout", timeout) * 1000)
            if until_ms > self._now_ms:
                raise await self._wait(field, until_ms)
            data = await self._store(field, b"%d " % self._now_ms, missed=name)
        return numbered, data.partition(b" ")[2] or None

    async def call(self, name: str, calls: Sequence[Any]) -> bytes:
        """Return the results of sub-tasks as a JSON list. Raise `TaskWaiting` if they have not ended."""
        record = await self._load()
        stored = record.get(f"k:{name}")
        if stored is not None:
            return _unless_failed(json_of(stored))
        begun = record.get(f"c:{name}")
        if begun is None:
            begun = b"%d %b" % (self._now_ms, children_id(self._task_id, record["of"].decode(), name).encode())
            begun = await self._store(f"c:{name}", begun)
        started_ms, _, workflow_id = begun.decode().partition(" ")
        if f"e:{name}" in record:
            try:
                data = await self.store.read_children(workflow_id)
            except (WorkflowFailedError, WorkflowCancelledError) as error:
                facts = [error.queue, workflow_id, error.reason[:REASON_CHARS]]
                data = FAILED + encode_result(facts)
            if data is not None:
                return _unless_failed(await self._keep("k", name, data, int(started_ms)))
        else:
            await self.store.start_children(name, workflow_id, calls)
        raise await self._wait(f"c:{name}", 0)

    async def emit(self, value: bytes, step: str) -> None:
        """Emit a value, unless an earlier run of this attempt emitted it before it waited."""
        await self._load()
        if not step:
            self._emitted += 1
            if self._emitted <= self._emitted_before:
                return
        await self.store.emit(step, value, self._attempt)


def json_of(stored: bytes) -> bytes:
    """Return the JSON in the stored result of a step, without its times."""
    return stored.split(b" ", 2)[2]


def _unless_failed(data: bytes) -> bytes:
    """Return the results of sub-tasks as JSON. Raise the stored failure if they failed."""
    if data.startswith(FAILED):
        raise WorkflowFailedError(*msgspec.json.decode(data[len(FAILED) :], type=tuple[str, str, str]))
    return data


def children_id(task_id: str, mark: str, name: str) -> str:
    """Return the id of the workflow of sub-tasks. It differs for a later task with the same id."""
    import hashlib  # imported here, because few tasks have sub-tasks

    digest = hashlib.blake2b(f"{task_id}\n{mark}\n{name}".encode(), digest_size=8).hexdigest()
    label = re.sub(r"[^\w.-]", "-", f"{task_id[:64]}.{name[:32]}", flags=re.ASCII)
    return f"{label}.{digest}"
