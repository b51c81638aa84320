"""Wait in coroutines for changes of tasks. The coroutines share connections and reads.

All coroutines of an event loop that wait for tasks of a queue share one subscription. All coroutines that follow the
same task share each read of it, so 200 followers cause no more requests than one.

Workers publish the changes and the end of a task on the channel of its queue, but only if a client has asked for them;
see `views.read_task`. Go workers publish nothing, so a follower also polls from time to time. A lost subscription only
causes a delay.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Any, Self

from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import views
from taskq_core.broker.operations.steps import StreamPage, read_stream
from taskq_core.broker.operations.views import StoredTask
from taskq_core.errors import BrokerError, BrokerUnavailableError
from taskq_core.handles.records import TaskInfo, task_info
from taskq_core.wire import QueueKeys

FIRST_PAUSE_S = 0.05
"""Seconds until the first repeated read after a change of state. The pause doubles with each read."""
LONGEST_PAUSE_S = 1.0
"""Maximum seconds between two reads of a task."""
Reading = asyncio.Task[StoredTask | None]


class EndHub:
    """Notifies coroutines when tasks change or end."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner
        self._channels: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Channel]] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.asynccontextmanager
    async def follow(self, channel_name: str, task_id: str) -> "AsyncIterator[tuple[SharedReadings, asyncio.Event]]":
        """Yield the shared reads of a task, and an event that is set when the follower should read the task again.

        The event is set when a message says that the task changed, when messages may have been missed, when the
        subscription is ready, and when another follower has read a change.
        """
        channels = self._channels.setdefault(asyncio.get_running_loop(), {})
        channel = channels.get(channel_name)
        if channel is None:
            channel = channels[channel_name] = _Channel(self._runner, channel_name)
        event = asyncio.Event()
        if channel.is_open:
            event.set()
        readings = channel.tasks.setdefault(task_id, SharedReadings())
        readings.events.add(event)
        try:
            yield readings, event
        finally:
            readings.events.discard(event)
            if not readings.events:
                readings.close()
                del channel.tasks[task_id]
            if not channel.tasks and channels.get(channel_name) is channel:
                del channels[channel_name]
                await channel.close()


class SharedReadings:
    """Reads of one task, shared by its followers on an event loop and numbered from 1 in the order they start.

    A follower uses a read that another follower started, if that read started after the follower's own last read and
    after the last message about the task.
    """

    def __init__(self) -> None:
        self.events: set[asyncio.Event] = set()
        self.number = 0
        """Number of the latest read of the task."""
        self._outdated = 0
        self._reading: Reading | None = None
        self._last: StoredTask | None = None
        self._pages: dict[str, asyncio.Task[StreamPage]] = {}

    def is_outdated(self, number: int) -> bool:
        """Return whether a message about the task has arrived since the read with this number started."""
        return number <= self._outdated

    def record_change(self) -> None:
        """Wake the followers of the task, because the task changed. Mark earlier reads as possibly outdated."""
        self._outdated = self.number
        self._pages.clear()
        for event in self.events:
            event.set()

    def take(self, after: int, read: Callable[[], Coroutine[Any, Any, StoredTask | None]]) -> tuple[Reading, bool]:
        """Return a read of the task that is newer than read number `after`.

        Start one if there is none. Return its asyncio task, and whether this call started the read.
        """
        if self._reading is not None and self.number > max(after, self._outdated):
            return self._reading, False
        self.number += 1
        self._reading = asyncio.get_running_loop().create_task(read())
        self._reading.add_done_callback(self._handle_end)
        return self._reading, True

    def take_page(self, after: str, read: Callable[[], Coroutine[Any, Any, StreamPage]]) -> asyncio.Task[StreamPage]:
        """Return the asyncio task that reads the emitted values after a position.

        Followers at the same position share it.
        """
        page = self._pages.get(after)
        if page is None:
            page = self._pages[after] = asyncio.get_running_loop().create_task(read())
            page.add_done_callback(lambda done: self._pages.get(after) is done and self._pages.pop(after))
        return page

    def _handle_end(self, reading: Reading) -> None:
        if reading.cancelled() or reading.exception() is not None or reading.result() == self._last:
            return
        self._last = reading.result()
        for event in self.events:
            event.set()

    def close(self) -> None:
        """Cancel the current read, because the last follower has left."""
        if self._reading is not None:
            self._reading.cancel()
        for page in self._pages.values():
            page.cancel()


Find = Callable[[str], Awaitable[TaskInfo | None]]
"""Finds a task by its id."""


class TaskFollower:
    """Reads one task repeatedly. Created by `HandleSource.afollower`."""

    def __init__(
        self,
        runner: AsyncRunner,
        hub: EndHub,
        queue: QueueKeys,
        task_id: str,
        *,
        patience_s: float,
        find_in_outbox: Find | None = None,
    ) -> None:
        self._runner = runner
        self._hub = hub
        self._queue = queue
        self._task_id = task_id
        self._patience_s = patience_s
        self._find_in_outbox = find_in_outbox
        self._stack = contextlib.AsyncExitStack()
        self._shared: tuple[SharedReadings, asyncio.Event] | None = None
        self._number = 0

    async def read(self, patience_s: float) -> StoredTask | None:
        """Return the task as stored in Redis, None if it does not exist.

        Raises:
            BrokerError: Redis does not answer.
        """
        if self._shared is None:
            # Workers publish changes of a task only if a reader asks for them. The first read does not wait, so it does
            # not ask.
            return await self._read_task(patience_s, publish_changes=False)
        readings, changed = self._shared
        reading, is_own = readings.take(self._number, lambda: self._read_task(patience_s, publish_changes=True))
        number = self._number = readings.number
        try:
            async with asyncio.timeout(None if is_own else patience_s):
                return await asyncio.shield(reading)
        except TimeoutError:
            raise BrokerUnavailableError.unchanged(f"no answer within {patience_s:g} s") from None
        finally:
            if not readings.is_outdated(number):
                changed.clear()

    async def read_stream(self, after: str, patience_s: float | None = None) -> StreamPage:
        """Return the next values that the task emitted after a position.

        Raises:
            BrokerError: Redis does not answer.
        """
        request = read_stream(self._queue, self._task_id, after=after)
        patience_s = patience_s or self._patience_s
        if self._shared is None:
            page = await self._runner.run(request, patience_s=patience_s)
        else:
            readings = self._shared[0]
            reading = readings.take_page(after, lambda: self._runner.run(request, patience_s=patience_s))
            page = await asyncio.shield(reading)
        if not page.state and self._find_in_outbox is not None and await self.find() is not None:
            return StreamPage("pending", page.values)
        return page

    async def _read_task(self, patience_s: float, *, publish_changes: bool) -> StoredTask | None:
        request = views.read_task(self._queue, self._task_id, publish_changes=publish_changes)
        return await self._runner.run(request, patience_s=patience_s)

    async def find(self) -> TaskInfo | None:
        """Read the task from Redis, or from the outbox if it still waits there. Return None if neither has it.

        Raises:
            BrokerError: Redis does not answer.
        """
        stored = await self.read(self._patience_s)
        if stored is None and self._find_in_outbox is not None:
            waiting = await self._find_in_outbox(self._task_id)
            if waiting is not None and waiting.queue == self._queue.name:
                return waiting
            stored = await self.read(self._patience_s)  # the outbox may have sent the task between the two reads
        return None if stored is None else task_info(stored)

    async def wait(self, timeout_s: float) -> None:
        """Wait until the next read: the timeout, or less if a message says that the task changed."""
        if self._shared is None:
            self._shared = await self._stack.enter_async_context(self._hub.follow(self._queue.done, self._task_id))
            self._number = self._shared[0].number  # ignore reads that started before the subscription
        changed = self._shared[1]
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await changed.wait()
        changed.clear()

    async def close(self) -> None:
        """Stop following the task. The subscription ends with its last follower."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Channel:
    def __init__(self, runner: AsyncRunner, name: str) -> None:
        self._runner = runner
        self._name = name
        self.tasks: dict[str, SharedReadings] = {}
        self.is_open = False
        self._task = asyncio.get_running_loop().create_task(self._listen(), name=f"taskq end hub {name}")

    async def _listen(self) -> None:
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                subscription = await self._runner.subscribe(self._name)
                self.is_open = True
                for each in self.tasks.values():
                    each.record_change()  # messages before the subscription were missed
                pause_s = FIRST_PAUSE_S
                try:
                    while True:
                        readings = self.tasks.get(await subscription.next())
                        if readings is not None:
                            readings.record_change()
                finally:
                    self.is_open = False
                    await subscription.close()
            except BrokerError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PAUSE_S)

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
