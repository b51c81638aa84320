"""Listen for cancel messages and cancel the runs they name.

A message is a bare task id, from anybody who can publish. One that names nothing that runs here costs a look into a
dict per queue.
"""

from collections.abc import Callable

from taskq_core.broker.aio import AsyncRunner


class Subscriber:
    """Listens on the cancel channel.

    Args:
        runner: Opens the subscription.
        channel: Name of the channel.
        cancel: Called with each task id.
    """

    def __init__(self, runner: AsyncRunner, channel: str, cancel: Callable[[str], object]) -> None:
        self._runner = runner
        self._channel = channel
        self._cancel = cancel

    async def work(self) -> float:
        """Listen until the connection ends, which raises."""
        subscription = await self._runner.subscribe(self._channel)
        try:
            while True:
                self._cancel(await subscription.next())
        finally:
            await subscription.close()
