"""Wait for what happens to tasks from coroutines: one subscription per queue and event loop, shared by all who wait.

A task that ends, or changes, says so on its queue's channel only if somebody asked (`operations.look`). Go workers
say nothing, so whoever waits also looks again after a while; a lost subscription therefore only delays.
"""

import asyncio
import contextlib
import weakref
from collections.abc import AsyncIterator
from typing import Self

from taskq_core.broker import operations
from taskq_core.broker.aio import AsyncRunner
from taskq_core.broker.operations import StoredTask
from taskq_core.errors import BrokerError
from taskq_core.events import FIRST_LOOK_S, LAST_LOOK_S
from taskq_core.records import TaskInfo, task_info
from taskq_core.wire import QueueKeys


class EndHub:
    """Tells coroutines when tasks end."""

    def __init__(self, runner: AsyncRunner) -> None:
        self._runner = runner
        self._channels: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _Channel]] = (
            weakref.WeakKeyDictionary()
        )

    @contextlib.asynccontextmanager
    async def listen(self, channel_name: str, task_id: str) -> AsyncIterator[asyncio.Event]:
        """Give an event that is set when the task is said to have changed, and whenever messages may have been missed.

        That is the case once the subscription stands, so whoever waits for the event looks at the task then.
        """
        channels = self._channels.setdefault(asyncio.get_running_loop(), {})
        channel = channels.get(channel_name)
        if channel is None:
            channel = channels[channel_name] = _Channel(self._runner, channel_name)
        event = asyncio.Event()
        if channel.is_open:
            event.set()
        channel.waiters.setdefault(task_id, set()).add(event)
        try:
            yield event
        finally:
            waiters = channel.waiters[task_id]
            waiters.discard(event)
            if not waiters:
                del channel.waiters[task_id]
            if not channel.waiters and channels.get(channel_name) is channel:
                del channels[channel_name]
                await channel.close()


class TaskFollower:
    """One task, looked at again and again. Made by `AsyncClient.follow`."""

    def __init__(self, runner: AsyncRunner, hub: EndHub, queue: QueueKeys, task_id: str, *, patience_s: float) -> None:
        self._runner = runner
        self._hub = hub
        self._queue = queue
        self._task_id = task_id
        self._patience_s = patience_s
        self._stack = contextlib.AsyncExitStack()
        self._told: asyncio.Event | None = None

    async def read(self, patience_s: float) -> StoredTask | None:
        """Read the task as it stands in Redis, None if there is no such task, or no more.

        Raises:
            BrokerError: Redis does not answer.
        """
        # Asking to be told is a write, which a single look does without.
        look = operations.look(self._queue, self._task_id, tell_changes=self._told is not None)
        return await self._runner.run(look, patience_s=patience_s)

    async def look(self) -> TaskInfo | None:
        """Read the task, None if there is no such task, or no more.

        Raises:
            BrokerError: Redis does not answer.
        """
        stored = await self.read(self._patience_s)
        return None if stored is None else task_info(stored)

    async def wait(self, timeout_s: float) -> None:
        """Wait until it is time to look again: so many seconds, fewer when the task is said to have changed."""
        if self._told is None:
            listening = self._hub.listen(self._queue.done, self._task_id)
            self._told = await self._stack.enter_async_context(listening)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._told.wait()
        self._told.clear()

    async def close(self) -> None:
        """Stop listening."""
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


class _Channel:
    def __init__(self, runner: AsyncRunner, name: str) -> None:
        self._runner = runner
        self._name = name
        self.waiters: dict[str, set[asyncio.Event]] = {}
        self.is_open = False
        self._task = asyncio.get_running_loop().create_task(self._listen(), name=f"taskq end hub {name}")

    async def _listen(self) -> None:
        pause_s = FIRST_LOOK_S
        while True:
            try:
                subscription = await self._runner.subscribe(self._name)
                self.is_open = True
                self._set_all()  # what was published before is missed
                pause_s = FIRST_LOOK_S
                try:
                    while True:
                        for event in self.waiters.get(await subscription.next(), ()):
                            event.set()
                finally:
                    self.is_open = False
                    await subscription.close()
            except BrokerError:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LAST_LOOK_S)

    def _set_all(self) -> None:
        for events in self.waiters.values():
            for event in events:
                event.set()

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.wait((self._task,))
